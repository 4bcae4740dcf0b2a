"""Rows that come back from the dead letters, once somebody has mended what was wrong and marked them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from uuid import UUID

import pytest

from backends import BatchingOptions, BatchLogWriter, DeadLetterFile, letters_in, mark_letters
from backends.dead_letters import DeadLetter
from backends.dispatch import Dispatcher
from backends.errors import SinkFatal
from backends.ledger import Home, Ledger
from backends.memory import MemoryDatabase, MemorySink
from backends.record import Batch, UsageRecord, row_bytes, stamped
from backends.retry import Backoff
from backends.room import Room
from backends.spool import Spool, SpoolOptions
from backends.testing import FaultySink, fail, lose_ack, make_record, virtual_clock
from backends.testing.rig import SEED, LetterBox, Rig, running, until


class Run:
    """A writer with its letters, and with ``spool`` its spool, in ``folder``."""

    def __init__(self, folder: Path, database: MemoryDatabase, *, spools: bool = False) -> None:
        self.root = folder / "spool-dead"
        self.letters = DeadLetterFile(self.root)
        options = SpoolOptions(path=folder / "spool", min_free_bytes=0)
        self.spool = Spool(options) if spools else None
        self.sink = FaultySink(MemorySink(database))
        self.writer = BatchLogWriter(
            self.sink,
            BatchingOptions(linger_s=0),
            sink_name="memory",
            dead_letters=self.letters,
            spool=self.spool,
        )

    async def put(self, **fields: object) -> UUID:
        row = make_record(**fields)
        await self.writer.put(row)
        return row.id

    def counts(self) -> tuple[int, int]:
        counts = self.writer.stats().counts
        assert counts.unaccounted == 0, counts
        return counts.committed + counts.duplicates, counts.dead_lettered


@asynccontextmanager
async def started(
    folder: Path, database: MemoryDatabase | None = None, *, spools: bool = False
) -> AsyncIterator[Run]:
    run = Run(folder, MemoryDatabase() if database is None else database, spools=spools)
    await run.writer.start()
    try:
        yield run
    finally:
        report = await run.writer.stop(5)
        if run.spool is not None:
            await run.spool.close()
        run.letters.close()
        counts = report.stats.counts
        assert counts.unaccounted == counts.queued == counts.in_flight == 0, counts


def letter(row: UsageRecord) -> DeadLetter:
    return DeadLetter(row=row, sink="memory", code="C", message="", attempts=1)


@virtual_clock
async def test_a_marked_row_moves_from_the_letters_to_the_sink(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with started(tmp_path, database) as run:
        run.sink.poison(lambda row: row.user_id == "bad")
        await run.put()
        bad = await run.put(user_id="bad")
        await until(lambda: run.counts() == (1, 1))
        assert "dead_letters" in run.writer.stats().degraded
        run.sink.heal()
        await asyncio.sleep(60)
        assert run.counts() == (1, 1), "nothing is sent again unasked"

        assert mark_letters(run.root, [bad]) == 1

        await until(lambda: run.counts() == (2, 0))
        assert "dead_letters" not in run.writer.stats().degraded
        assert list(letters_in(run.root)) == []
        assert (run.writer.stats().counts.accepted, run.writer.stats().counts.recovered) == (2, 0)
    assert bad in database.rows and len(database.rows) == 2


@virtual_clock
async def test_a_row_that_is_refused_again_stays_a_letter_without_its_mark(tmp_path: Path) -> None:
    async with started(tmp_path) as run:
        run.sink.poison(lambda row: row.user_id == "bad")
        await run.put(user_id="bad")
        await run.put(user_id="good")
        await until(lambda: run.counts() == (1, 1))

        mark_letters(run.root)

        await until(lambda: not any(each.is_marked for each in letters_in(run.root)))
        assert run.counts() == (1, 1)
        (found,) = letters_in(run.root)
        assert found.attempts == 2
        calls = len(run.sink.batch_ids())
        await asyncio.sleep(60)
        assert len(run.sink.batch_ids()) == calls, "it is not sent again unasked"


@virtual_clock
async def test_of_many_marked_rows_the_bad_one_alone_stays(tmp_path: Path) -> None:
    database = MemoryDatabase()
    rows = [make_record(user_id="bad" if n == 700 else None) for n in range(1200)]
    box = DeadLetterFile(tmp_path / "spool-dead")
    box.add([letter(row) for row in rows])
    box.close()
    mark_letters(tmp_path / "spool-dead")

    async with started(tmp_path, database) as run:
        run.sink.poison(lambda row: row.user_id == "bad")
        await until(lambda: run.counts() == (1199, 1))
        await until(lambda: not any(each.is_marked for each in letters_in(run.root)))
        assert run.writer.stats().counts.recovered == 1200

    assert len(database.rows) == 1199 and rows[700].id not in database.rows


@virtual_clock
async def test_a_sink_that_is_down_leaves_marked_rows_where_they_are_until_it_is_up(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with started(tmp_path, database) as run:
        run.sink.poison(lambda row: True)
        await run.put()
        await until(lambda: run.counts() == (0, 1))
        run.sink.always = fail()
        mark_letters(run.root)
        await asyncio.sleep(120)
        assert run.counts()[0] == 0 and len(list(letters_in(run.root))) == 1

        run.sink.heal()

        await until(lambda: run.counts() == (1, 0))
    assert len(database.rows) == 1


@virtual_clock
async def test_stopping_with_a_marked_row_in_flight_leaves_it_to_the_next_run(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with started(tmp_path, database) as run:
        run.sink.poison(lambda row: True)
        await run.put()
        await until(lambda: run.counts() == (0, 1))
        run.sink.heal()
        run.sink.always = run.sink.hang(heeds_cancel=True)
        mark_letters(run.root)
        await until(lambda: run.writer.stats().counts.in_flight == 1)
        report = await run.writer.stop(1)
        assert report.is_clean
        assert (report.stats.counts.dead_lettered, report.stats.counts.abandoned) == (1, 0)
    async with started(tmp_path, database) as run:
        await until(lambda: run.counts() == (1, 0))
    assert len(database.rows) == 1


@virtual_clock
async def test_a_row_whose_letter_outlived_its_delivery_is_stored_once(tmp_path: Path) -> None:
    """As after kill -9 between the write and the removal."""
    database = MemoryDatabase()
    row = stamped(make_record(), make_record().id, make_record().id, 1)
    box = DeadLetterFile(tmp_path / "spool-dead")
    box.add([letter(row)])
    box.close()
    mark_letters(tmp_path / "spool-dead")
    await MemorySink(database).write(Batch.of((row,)))

    async with started(tmp_path, database) as run:
        await until(lambda: run.writer.stats().counts.duplicates == 1)
        assert run.counts() == (1, 0)
    assert len(database.rows) == 1


@virtual_clock
async def test_a_lost_answer_while_rows_are_sent_again_stores_nothing_twice(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with started(tmp_path, database) as run:
        run.sink.poison(lambda row: True)
        await run.put()
        await until(lambda: run.counts() == (0, 1))
        run.sink.heal()
        run.sink.always = lose_ack()
        mark_letters(run.root)
        await until(lambda: len(database.rows) == 1)
        run.sink.heal()
        await until(lambda: run.counts() == (1, 0))
        assert run.writer.stats().counts.duplicates == 1
    assert len(database.rows) == 1


@virtual_clock
async def test_a_row_that_is_in_the_spool_and_has_a_letter_counts_once_as_a_letter(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with started(tmp_path, database, spools=True) as run:
        run.sink.always = fail()
        twice, once = await run.put(), await run.put()
        report = await run.writer.stop(1)
        assert report.stats.counts.spooled == 2
    box = DeadLetterFile(tmp_path / "spool-dead")
    box.add([letter(stamped(make_record(), twice, run.writer.boot_id, 1))])
    box.close()

    async with started(tmp_path, database, spools=True) as run:
        counts = run.writer.stats().counts
        assert (counts.accepted, counts.recovered, counts.dead_lettered) == (2, 2, 1)
        await until(lambda: run.counts() == (1, 1))
        assert list(database.rows) == [once]
        mark_letters(run.root)
        await until(lambda: run.counts() == (2, 0))

    async with started(tmp_path, database, spools=True) as run:
        assert run.writer.stats().counts.accepted == 0
    assert set(database.rows) == {twice, once}


@virtual_clock
async def test_letters_of_a_sibling_that_died_are_adopted_and_counted(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with started(tmp_path, database) as run:
        async with started(tmp_path, database) as dying:
            dying.sink.poison(lambda row: True)
            await dying.put()
            await until(lambda: dying.counts() == (0, 1))
        await until(lambda: run.counts() == (0, 1))
        assert run.writer.stats().counts.recovered == 1
        mark_letters(run.root)
        await until(lambda: run.counts() == (1, 0))
    assert len(database.rows) == 1


@virtual_clock
async def test_letters_in_a_folder_that_is_claimed_later_are_counted(tmp_path: Path) -> None:
    """Ours was removed, and that of a sibling that died is the first free one."""
    sibling = DeadLetterFile(tmp_path / "spool-dead")
    sibling.open()
    sibling.add([letter(make_record()) for _ in range(4)])
    async with started(tmp_path) as run:
        sibling.close()
        shutil.rmtree(run.root / "instance-2")
        await until(lambda: run.counts() == (0, 4))
        mark_letters(run.root)
        await until(lambda: run.counts() == (4, 0))


@virtual_clock
async def test_letters_that_are_sent_again_before_they_were_counted_are_counted_once(tmp_path: Path) -> None:
    """Their disk came only after the start."""
    letters = DeadLetterFile(tmp_path / "spool-dead")
    letters.open()
    letters.add([letter(make_record()) for _ in range(3)])
    letters.close()
    mark_letters(letters.root)
    hidden = letters.root.rename(tmp_path / "away")
    letters.root.touch()
    async with started(tmp_path) as run:
        letters.root.unlink()
        hidden.rename(letters.root)
        while run.counts() != (3, 0):
            assert run.counts()[1] >= 0
            await asyncio.sleep(0.1)
        assert run.writer.stats().counts.accepted == 3


@virtual_clock
async def test_letters_that_cannot_be_kept_or_read_show_and_heal(tmp_path: Path) -> None:
    (tmp_path / "spool-dead").touch()
    async with started(tmp_path) as run:
        assert "dead_letters_ailing" in run.writer.stats().degraded
        run.sink.poison(lambda row: True)
        await run.put()
        await until(lambda: "dead_letters_full" in run.writer.stats().degraded)
        assert run.counts() == (0, 0)
        (tmp_path / "spool-dead").unlink()
        await until(lambda: run.counts() == (0, 1))
        await until(lambda: set(run.writer.stats().degraded) == {"dead_letters"})


@virtual_clock
async def test_a_marked_row_is_never_in_flight_twice() -> None:
    async with running(linger_s=0) as rig:
        rig.sink.poison(lambda row: row.user_id == "bad")
        bad = await rig.put(user_id="bad")
        await until(lambda: rig.box.ids() == [bad])
        rig.sink.heal()
        gate = rig.sink.hang(heeds_cancel=True)
        rig.sink.always = gate
        rig.box.marks.append(bad)
        await until(lambda: rig.writer.stats().counts.in_flight == 1)
        for _ in range(20):
            await asyncio.sleep(1)
            assert rig.writer.stats().counts.in_flight <= 1
        _check(rig)
        rig.sink.heal()
        await until(lambda: rig.writer.stats().counts.committed == 1, within_s=3600)
        assert rig.box == LetterBox()


def _check(rig: Rig) -> None:
    assert rig.writer.stats().counts.unaccounted == 0


@pytest.mark.parametrize("home", ["spooled", "dead_lettered"])
@pytest.mark.parametrize("has_disk", [False, True])
def test_rows_of_the_disk_go_back_there_when_everything_is_given_up(home: Home, has_disk: bool) -> None:
    """``single`` gives up what waits once the sink is down; what the disk has already need not be."""
    ledger = Ledger(make_record().id, Room(1000, 10**9))
    dispatcher = Dispatcher(
        ledger,
        BatchingOptions(linger_s=0),
        sink="acme",
        dead_letters=LetterBox(),
        backoff=Backoff(Random(SEED)),
        give_up_after_s=5,
        disk=Disk() if has_disk else None,
    )
    assert ledger.room.admit()
    ledger.accept(row := make_record(), row.id, row_bytes(row), now=0.0)
    job = dispatcher.next(0.0)
    assert job is not None
    ledger.recover(1, home)
    dispatcher.fetched(Batch.of((make_record(),)), 0.0, home)

    dispatcher.settle(job, SinkFatal("28P01"), now=0.0)

    counts = ledger.counts()
    assert (getattr(counts, home), counts.abandoned) == (1, 0 if has_disk else 1)
    assert not ledger.has_fetched(home) and counts.unaccounted == 0


class Disk:
    is_write_ahead = False

    def forget(self, rows: Iterable[UUID]) -> None:
        """There is nothing to forget."""
