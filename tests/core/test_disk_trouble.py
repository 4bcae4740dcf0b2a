"""What befalls a disk, and what of it the rows must not feel: errors, hanging, damage, odd neighbours."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path
from unittest.mock import patch

import pytest
from disks import (
    change,
    copy_of,
    failing_disk,
    full_disk,
    hung_disk,
    in_folder,
    intent,
    left_behind,
    lost_replies,
    one_io_error,
    rows_on_disk,
    spool_of,
    spooling,
)

from backends import Place, SingleLogWriter
from backends.audit import Facts, audit_boots
from backends.errors import NotDurable
from backends.memory import MemoryDatabase, MemorySink
from backends.numbers import runs_of
from backends.spool import Spool, SpoolOptions, mending
from backends.spool.traffic import SpoolTraffic
from backends.testing import fail, make_record, slow, virtual_clock
from backends.testing.faults import Gate
from backends.testing.rig import LetterBox, Rig, build_writer, until
from backends.write_ahead import WriteAheadLogWriter

JOURNALLED = {"kind": WriteAheadLogWriter, "mode": "write_ahead"}


async def begun(rig: Rig) -> Place:
    """A call whose provider is about to be asked."""
    place = await rig.writer.reserve(intent=intent())
    assert isinstance(place, Place), place
    return place


async def answered(rig: Rig) -> Place:
    """A call that has its answer."""
    place = await begun(rig)
    place.put(make_record(id=place.id))
    await place.durable()
    return place


# --- an I/O error: the file is read anew, the folder stays ours


@virtual_clock
async def test_a_running_call_is_still_running_after_an_io_error(tmp_path: Path) -> None:
    """Of an instance that was the second one when it began, and is alone now."""
    database = MemoryDatabase()
    async with AsyncExitStack() as first:
        await first.enter_async_context(spooling(tmp_path, **JOURNALLED))
        async with spooling(tmp_path, database, linger_s=0, **JOURNALLED) as rig:
            await first.aclose()
            running = await begun(rig)
            with one_io_error():
                (await begun(rig)).release()
            await asyncio.sleep(40)
            running.put(make_record(id=running.id))
            await until(lambda: running.id in database.rows)

    assert database.rows[running.id].status == "success"


@virtual_clock
async def test_a_sibling_does_not_take_running_calls_for_dead_ones_after_an_io_error(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database, linger_s=0, **JOURNALLED) as rig:
        async with spooling(tmp_path, database, linger_s=0, **JOURNALLED) as sibling:
            running = await begun(rig)
            with one_io_error():
                unlucky = await begun(rig)
            await spool_of(sibling).look_after()
            await asyncio.sleep(40)
            unlucky.release()
            assert sibling.writer.stats().counts.recovered == 0
            running.put(make_record(id=running.id))
            await until(lambda: running.id in database.rows)

    assert database.rows[running.id].status == "success"


@virtual_clock
async def test_rows_are_not_recovered_from_ourselves_after_an_io_error(tmp_path: Path) -> None:
    async with AsyncExitStack() as first:
        await first.enter_async_context(spooling(tmp_path))
        async with spooling(tmp_path, linger_s=0, batch_deadline_s=5, fault=fail()) as rig:
            await first.aclose()
            await rig.put_many(7)
            await until(lambda: rig.writer.stats().counts.spooled == 7)
            with one_io_error():
                await rig.put()
                await asyncio.sleep(60)
            rig.sink.heal()
            await until(lambda: rig.writer.stats().counts.committed == 8)
            counts = rig.writer.stats().counts
            assert (counts.accepted, counts.recovered, counts.abandoned) == (8, 0, 0)


# --- a write that was done, and said to have failed


@virtual_clock
async def test_rows_that_were_kept_though_it_looked_otherwise_do_not_come_back_in_place_of_others(
    tmp_path: Path,
) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database, linger_s=0, batch_deadline_s=5, fault=fail()) as rig:
        with lost_replies() as was_lost:
            await rig.put_many(5)
            await until(was_lost.is_set)
            rig.sink.heal()
            await until(lambda: rig.writer.stats().counts.committed == 5)
        rig.sink.always = fail()
        await rig.put_many(5)
        await until(lambda: rig.writer.stats().counts.spooled == 5)
        rig.sink.heal()
        await until(lambda: rig.writer.stats().counts.spooled == 0)
        await rig.writer.flush(60)
        assert len(database.rows) == 10
        assert rig.writer.stats().counts.duplicates == 0
    assert rows_on_disk(tmp_path) == 0


@virtual_clock
async def test_a_batch_that_was_kept_though_it_looked_otherwise_is_not_in_flight_twice(
    tmp_path: Path,
) -> None:
    database = MemoryDatabase()
    first, second = Gate(), Gate()
    limits = {"max_queue_rows": 50, "flush_concurrency": 1, "attempt_timeout_s": 60}
    async with spooling(tmp_path, database, linger_s=0, **limits) as rig:
        rig.sink.script(first, second)
        calls = [await rig.place() for _ in range(37)]
        await rig.put()
        await first.entered.wait()
        with lost_replies() as was_lost:
            await rig.put_many(5)
            await until(was_lost.is_set)
            first.opened.set()
        await second.entered.wait()
        await rig.put_many(5)
        await until(lambda: rig.writer.stats().counts.spooled == 5)
        for place in calls:
            place.release()
        await asyncio.sleep(10)
        assert rig.writer.stats().counts.in_flight == 10
        second.opened.set()
        await until(lambda: rig.writer.stats().counts.committed == 11)
        assert len(set(rig.sink.batch_ids())) == len(rig.sink.batch_ids()) == 3
    assert (len(database.rows), rows_on_disk(tmp_path)) == (11, 0)


@virtual_clock
async def test_a_lock_that_somebody_removed_costs_no_row(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database, linger_s=0, batch_deadline_s=5, fault=fail()) as rig:
        await rig.put_many(5)
        (tmp_path / "instance-1" / "lock").unlink()
        await until(lambda: rig.writer.stats().counts.spooled == 5)
        rig.sink.heal()
        await until(lambda: rig.writer.stats().counts.committed == 5)
        rig.sink.always = fail()
        await rig.put_many(5)
        await until(lambda: rig.writer.stats().counts.spooled == 5)
        rig.sink.heal()
        await until(lambda: rig.writer.stats().counts.committed == 10)
        assert (rig.writer.stats().counts.recovered, len(database.rows)) == (0, 10)
    assert rows_on_disk(tmp_path) == 0


# --- a disk that hangs


@virtual_clock
async def test_what_waits_for_a_disk_that_hangs_is_bounded(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=0, max_queue_rows=20, **JOURNALLED) as rig:
        spool = spool_of(rig)
        async with hung_disk(spool):
            for _ in range(400):
                await answered(rig)
                await asyncio.sleep(0.005)
            assert len(spool._pending.intents) + len(spool._pending.rows) < 100
            assert len(spool._held) + len(spool._waiting) < 100
            assert "spool_ailing" in rig.writer.stats().degraded


@virtual_clock
async def test_what_a_disk_that_fails_need_not_keep_is_bounded(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=0, max_queue_rows=20, **JOURNALLED) as rig:
        spool = spool_of(rig)
        with failing_disk(sqlite3.OperationalError("attempt to write a readonly database")):
            for _ in range(400):
                await answered(rig)
                await asyncio.sleep(0.005)
            assert len(spool._forgotten) + len(spool._held) + len(spool._pending.dropped_rows) < 100


@virtual_clock
async def test_a_disk_that_hangs_takes_no_batch_hostage(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=0, batch_deadline_s=5, fault=fail()) as rig:
        async with hung_disk(spool_of(rig)):
            await rig.put_many(50)
            await asyncio.sleep(20)
            rig.sink.heal()
            await until(lambda: rig.writer.stats().counts.committed == 50)
            report = await rig.writer.stop(10)
            assert (report.outcome, report.stats.counts.abandoned) == ("drained", 0)
    assert rows_on_disk(tmp_path) == 0


@virtual_clock
async def test_the_start_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    database = MemoryDatabase()
    spool = Spool(SpoolOptions(path=tmp_path, min_free_bytes=0))
    writer = build_writer(MemorySink(database), LetterBox(), spool=spool, linger_s=0)
    async with hung_disk(spool):
        await writer.start()
        await writer.put(make_record())
        await until(lambda: len(database.rows) == 1)
        assert "spool_ailing" in writer.stats().degraded
        await writer.stop(2)
    await spool.close()


@virtual_clock
async def test_no_call_waits_for_a_disk_that_is_known_to_hang(tmp_path: Path) -> None:
    """Though something else that was under way, beside the write that hangs, has ended since."""
    loop = asyncio.get_running_loop()
    async with spooling(tmp_path, linger_s=0, **JOURNALLED) as rig:
        spool = spool_of(rig)
        looking = asyncio.ensure_future(spool.look_after())
        await asyncio.sleep(0)
        async with hung_disk(spool):
            (await begun(rig)).release()
            began = loop.time()
            for _ in range(20):
                (await begun(rig)).release()
            assert loop.time() - began < 3
        await looking


@virtual_clock
async def test_what_is_told_to_be_abandoned_is_not_written_after_all(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=60, fault=fail()) as rig:
        await rig.put_many(10)
        with patch("backends.spool.spool.LAST_CHANCE_S", 0.01):
            async with hung_disk(spool_of(rig)):
                assert rig.writer.close_now().stats.counts.abandoned == 10
    assert rows_on_disk(tmp_path) == 0


# --- a disk that is full


async def crashed(folder: Path) -> Path:
    """What kill -9 leaves of two answered calls and a running one."""
    async with spooling(folder / "before", linger_s=0, fault=fail(), **JOURNALLED) as rig:
        await answered(rig)
        await answered(rig)
        await begun(rig)
        copy = copy_of(folder / "before", folder / "after")
        rig.writer.close_now()
    return copy


@virtual_clock
async def test_rows_on_a_full_disk_reach_a_sink_that_is_well(tmp_path: Path) -> None:
    folder = await crashed(tmp_path)
    database = MemoryDatabase()
    async with spooling(folder, database, min_free_bytes=1 << 60, **JOURNALLED):
        await until(lambda: len(database.rows) == 3)
    assert rows_on_disk(folder) == 0


def missing(database: MemoryDatabase, box: LetterBox) -> list[int]:
    """Numbers of runs that have ended, that no row has."""
    facts = Facts(boots=(*database.boots.values(), *box.boots.values()), runs=runs_of(database.rows.values()))
    return [number for boot in audit_boots(facts) if boot.state == "closed" for number in boot.missing]


@virtual_clock
@pytest.mark.parametrize("trouble", ["full", "failing"])
async def test_no_number_is_missed_of_a_crashed_call_that_could_not_be_written_with_it(
    tmp_path: Path, trouble: str
) -> None:
    folder = await crashed(tmp_path)
    database, box = MemoryDatabase(), LetterBox()
    with full_disk() if trouble == "full" else failing_disk():
        async with spooling(folder, database, box=box, **JOURNALLED):
            await asyncio.sleep(60)
    async with spooling(folder, database, box=box, **JOURNALLED):
        await until(lambda: len(database.rows) == 3)
    assert missing(database, box) == []


@virtual_clock
async def test_no_number_is_missed_of_a_crashed_call_whose_row_the_sink_has(tmp_path: Path) -> None:
    """The row was in the sink, its journal not yet on the disk; then kill -9."""
    database, box = MemoryDatabase(), LetterBox()
    async with spooling(tmp_path / "before", database, linger_s=0, **JOURNALLED) as rig:
        place = await begun(rig)
        copy = copy_of(tmp_path / "before", tmp_path / "after")
        place.put(make_record(id=place.id))
    async with spooling(copy, database, box=box, **JOURNALLED) as rig:
        await until(lambda: rig.writer.stats().counts.duplicates == 1)
    assert missing(database, box) == []
    assert database.rows[place.id].status == "success"


# --- memory that is short, and not of rows


@virtual_clock
async def test_running_calls_alone_send_no_row_to_the_disk(tmp_path: Path) -> None:
    async with spooling(tmp_path, max_queue_rows=100) as rig:
        calls = [await rig.place() for _ in range(85)]
        for _ in range(50):
            await rig.put()
            await asyncio.sleep(1)
        counts = rig.writer.stats().counts
        for place in calls:
            place.release()
        assert (counts.committed, counts.spooled) == (50, 0)


@virtual_clock
async def test_running_calls_alone_make_single_refuse_nothing(tmp_path: Path) -> None:
    async with spooling(
        tmp_path, kind=SingleLogWriter, max_queue_rows=100, flush_concurrency=1, fault=slow(0.01)
    ) as rig:
        calls = [await rig.place() for _ in range(81)]

        async def call(number: int) -> None:
            await asyncio.sleep(number * 0.003)
            place = await rig.place()
            rig.use(place)
            await place.durable()

        for _ in range(20):
            outcomes = await asyncio.gather(*(call(n) for n in range(3)), return_exceptions=True)
            assert not [each for each in outcomes if isinstance(each, NotDurable)]
            await asyncio.sleep(0.1)
        for place in calls:
            place.release()


# --- neighbours


@virtual_clock
@pytest.mark.parametrize("number", [1, 7])
async def test_a_folder_that_is_not_ours_to_lock_makes_nobody_ill(tmp_path: Path, number: int) -> None:
    odd = tmp_path / f"instance-{number}"
    (odd / "lock").mkdir(parents=True)  # as good as one that another user made
    (odd / "spool.db").touch()
    async with spooling(tmp_path, linger_s=0, **JOURNALLED) as rig:
        for _ in range(20):
            await answered(rig)
            assert rig.writer.stats().degraded == {}
            await asyncio.sleep(3)


@virtual_clock
async def test_nothing_is_adopted_into_a_folder_that_was_taken_away(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database) as ours:
        async with spooling(tmp_path, database, fault=fail()) as sibling:
            await sibling.put_many(10)
            shutil.rmtree(tmp_path / "instance-1")
        assert rows_on_disk(tmp_path) == 10
        await until(lambda: ours.writer.stats().counts.committed == 10)
    assert len(database.rows) == 10


# --- damage


@virtual_clock
async def test_a_bad_byte_in_a_row_id_holds_up_no_other_row(tmp_path: Path) -> None:
    path = await left_behind(tmp_path, 20, max_rows=5)
    change(path, "UPDATE rows SET row_id = CAST(x'FF' AS TEXT) || substr(row_id, 2) WHERE rowid = 11")
    database = MemoryDatabase()
    async with spooling(tmp_path, database) as rig:
        await until(lambda: len(database.rows) == 19)
        await asyncio.sleep(60)
        assert "spool_damaged" in rig.writer.stats().degraded
        assert rig.writer.stats().counts.spooled == 0


@virtual_clock
@pytest.mark.parametrize("table", ["rows", "batches"])
async def test_a_damaged_batch_id_costs_no_row(tmp_path: Path, table: str) -> None:
    path = await left_behind(tmp_path, 20, max_rows=5)
    change(path, f"UPDATE {table} SET batch_id = 'x' || substr(batch_id, 2) WHERE rowid = 3")
    database = MemoryDatabase()
    async with spooling(tmp_path, database):
        await until(lambda: len(database.rows) == 20)
    assert rows_on_disk(tmp_path) == 0


@virtual_clock
async def test_trouble_that_nobody_foresaw_is_tried_again_after_a_pause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = MemoryDatabase()
    await left_behind(tmp_path, 5)
    async with spooling(tmp_path, database):
        with patch.object(SpoolTraffic, "_fetch", side_effect=ValueError):
            await asyncio.sleep(10)
        assert 5 < sum(record.message == "spool_traffic_died" for record in caplog.records) < 15
        await until(lambda: len(database.rows) == 5)


@virtual_clock
async def test_a_refused_row_for_which_the_letters_have_no_room_holds_up_no_other_row(tmp_path: Path) -> None:
    async with spooling(tmp_path, max_rows=10, fault=fail()) as rig:
        await rig.put(user_id="bad")
        await rig.put_many(99)
    box = LetterBox(is_full=True)
    database = MemoryDatabase()
    async with spooling(tmp_path, database, box=box, max_rows=10) as rig:
        rig.sink.poison(lambda row: row.user_id == "bad", names_rows=True)
        await until(lambda: len(database.rows) == 99)
        assert rig.writer.stats().counts.spooled == 1


# --- a file that SQLite finds damaged


async def damaged(folder: Path, *sql: str) -> Path:
    """A file of 200 rows, one of its indexes destroyed."""
    path = await left_behind(folder, 200, max_rows=50)
    for statement in sql:
        change(path, statement)
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'rows_by_batch'")
        start = (found.fetchone()[0] - 1) * 4096
    pages = bytearray(path.read_bytes())
    pages[start : start + 64] = b"\xff" * 64
    path.write_bytes(pages)
    return path


async def delivered(folder: Path) -> int:
    database = MemoryDatabase()
    async with spooling(folder, database) as rig:
        await until(lambda: rig.writer.stats().counts.spooled == 0)
        await rig.writer.flush(60)
    return len(database.rows)


@virtual_clock
async def test_the_rows_of_a_damaged_file_are_saved_whatever_its_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "a#b?c%20d"
    await damaged(folder)

    assert await delivered(folder) == 200


@virtual_clock
async def test_one_bad_byte_does_not_end_the_saving_of_a_damaged_file(tmp_path: Path) -> None:
    bad = "UPDATE rows SET row_id = CAST(x'FF' AS TEXT) || substr(row_id, 2) WHERE rowid = 11"
    await damaged(tmp_path, bad)

    assert await delivered(tmp_path) == 199


@virtual_clock
@pytest.mark.parametrize("number", [1, 2])
async def test_the_saving_of_a_damaged_file_may_be_cut_short_before_each_renaming(
    tmp_path: Path, number: int
) -> None:
    path = await damaged(tmp_path)
    rename, begun = mending._rename, []

    def cut_short(path: Path, name: Path) -> None:
        begun.append(path)
        if len(begun) == number:
            raise InterruptedError
        rename(path, name)

    with patch.object(mending, "_rename", cut_short), pytest.raises(InterruptedError):
        mending.open_or_mend(path, "normal")

    assert await delivered(tmp_path) == 200
    assert len(in_folder(tmp_path, "instance-1/spool.db.corrupt-*[0-9]")) == 1


@virtual_clock
async def test_rows_on_their_way_to_a_disk_that_trips_us_up_are_sent_when_the_sink_is_well(
    tmp_path: Path,
) -> None:
    database = MemoryDatabase()

    async def trips(*_: object, **__: object) -> bool:
        raise RuntimeError("a bug of ours")

    async with spooling(tmp_path, database, linger_s=0, batch_deadline_s=5, fault=fail()) as rig:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Spool, "keep", trips)
            ids = await rig.put_many(3)
            await asyncio.sleep(10)
        rig.sink.heal()
        await until(lambda: sorted(database.rows) == sorted(ids))
