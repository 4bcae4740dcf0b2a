"""The core with a disk beside it: spilling, stopping, coming back, journalling, trouble."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from disks import copy_of, in_folder, left_behind, rows_on_disk, spooling

from backends import Place, SingleLogWriter
from backends.errors import NotDurable, SinkRetryable, SpoolUnavailable
from backends.memory import MemoryDatabase
from backends.sink import Committed
from backends.spool import Spool, SpoolOptions
from backends.spool.changes import Changes
from backends.spool.store import SpoolStore
from backends.testing import Deliver, fail, fatal, lose_ack, make_batch, make_record, virtual_clock
from backends.testing.rig import LetterBox, until
from backends.write_ahead import WriteAheadLogWriter


@virtual_clock
async def test_03_stop_deadline_then_cancel_spools_what_is_left(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database, linger_s=0, max_rows=10) as rig:
        rig.sink.always = rig.sink.hang(heeds_cancel=True)
        ids = await rig.put_many(25)
        report = await rig.writer.stop(5)
        assert report.is_clean
        assert (report.stats.counts.spooled, report.stats.counts.abandoned) == (25, 0)
    assert rows_on_disk(tmp_path) == 25

    async with spooling(tmp_path, database) as rig:
        await until(lambda: len(database.rows) == 25)
        counts = rig.writer.stats().counts
        assert (counts.accepted, counts.recovered) == (25, 25)

    assert sorted(database.rows) == sorted(ids)
    assert rows_on_disk(tmp_path) == 0


@virtual_clock
async def test_08_a_dying_loop_leaves_its_rows_on_the_disk(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=3600) as rig:
        await rig.put_many(7)
        report = rig.writer.close_now()
        assert report.stats.counts.spooled == 7


@virtual_clock
async def test_a_stop_with_the_sink_down_is_clean_and_the_next_start_delivers_under_the_same_batch_id(
    tmp_path: Path,
) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database, linger_s=0, fault=fail()) as rig:
        await rig.put_many(40)
        await asyncio.sleep(5)
        (batch_id,) = set(rig.sink.batch_ids())
    async with spooling(tmp_path, database) as rig:
        await until(lambda: len(database.rows) == 40)
        assert set(rig.sink.batch_ids()) == {batch_id}


@virtual_clock
async def test_20_commit_unknown_then_deadline(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database, linger_s=0, batch_deadline_s=20, fault=lose_ack()) as rig:
        await rig.put_many(9)
        await until(lambda: rig.writer.stats().counts.spooled == 9)
        rig.sink.heal()
        await until(lambda: rig.writer.stats().counts.duplicates == 9)
    assert len(database.rows) == 9


@virtual_clock
async def test_32_fatal_auth_or_schema_keeps_rows_and_heals(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=0, batch_deadline_s=20, fault=fatal()) as rig:
        await rig.put_many(5)
        await asyncio.sleep(60)
        counts = rig.writer.stats().counts
        assert (counts.spooled, counts.dead_lettered) == (5, 0)
        rig.sink.heal()
        await until(lambda: rig.writer.stats().counts.committed == 5)


@virtual_clock
async def test_without_room_in_memory_calls_have_their_place_on_the_disk(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database, linger_s=0, max_rows=10, max_queue_rows=50, fault=fail()) as rig:
        for _ in range(1000):
            await rig.put()
            await asyncio.sleep(0.005)
            assert rig.writer.stats().queue_rows <= 2 * 50
        assert rig.writer.stats().shed == {}
        assert rig.writer.stats().counts.spooled > 900
        rig.sink.heal()
        await until(lambda: len(database.rows) == 1000)
        counts = rig.writer.stats().counts
        assert (counts.committed, counts.spooled, counts.duplicates) == (1000, 0, 0)


@virtual_clock
async def test_a_poison_row_from_the_disk_is_buried_and_leaves_the_disk(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=0, fault=fail()) as rig:
        ids = await rig.put_many(16)
        await asyncio.sleep(3)
    box = LetterBox()
    database = MemoryDatabase()
    async with spooling(tmp_path, database, box=box) as rig:
        rig.sink.poison(lambda row: row.id == ids[5])
        await until(lambda: len(database.rows) == 15)
        await until(lambda: rig.writer.stats().counts.dead_lettered == 1)
        assert box.ids() == [ids[5]]
    assert rows_on_disk(tmp_path) == 0


@virtual_clock
async def test_single_puts_on_the_disk_what_it_could_not_commit_within_the_call(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database, kind=SingleLogWriter, attempt_timeout_s=3, fault=fail()) as rig:
        place = await rig.place()
        place.put(make_record())
        with pytest.raises(NotDurable, match="spooled"):
            await place.durable()
        rig.sink.heal()
        await until(lambda: list(database.rows) == [place.id])


@virtual_clock
async def test_52_an_ailing_disk_shows_and_the_rows_stay_in_memory(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=0, batch_deadline_s=5, fault=fail()) as rig:
        assert rig.writer._spool is not None

        def broken(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        await rig.put_many(3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("backends.spool.store.SpoolStore.apply", broken)
            await until(lambda: "spool_ailing" in rig.writer.stats().degraded)
            assert rig.writer.stats().counts.spooled == 0
        await until(lambda: rig.writer.stats().counts.spooled == 3)
        assert "spool_ailing" not in rig.writer.stats().degraded


@virtual_clock
async def test_48_write_ahead_has_every_answered_row_and_running_call_on_the_disk(
    tmp_path: Path,
) -> None:
    """What a kill -9 leaves is what is on the disk at that moment: it is copied and opened by another run."""
    ahead = tmp_path / "ahead"
    async with spooling(ahead, kind=WriteAheadLogWriter, mode="write_ahead", linger_s=3600) as rig:
        answered = await rig.place()
        answered.put(make_record())
        await answered.durable()
        intent = make_record(status="cancelled", end_reason="crash", cost=None)
        running = await rig.writer.reserve(intent=lambda: intent)
        assert isinstance(running, Place)
        copy = copy_of(ahead, tmp_path / "copy")
        running.release()

    database = MemoryDatabase()
    async with spooling(copy, database) as rig:
        await until(lambda: len(database.rows) == 2)
        assert rig.writer.stats().counts.recovered == 2
        boot_id = rig.writer.boot_id
    assert database.rows[answered.id].status == "success"
    crashed = database.rows[running.id]
    assert (crashed.end_reason, crashed.boot_id, crashed.seq) == ("crash", boot_id, 1)


@virtual_clock
async def test_50_crash_during_redelivery_loses_nothing(tmp_path: Path) -> None:
    """Again and again: each time the sink is asked, and the process dies before it answers."""
    path = await left_behind(tmp_path / "first", 25)
    folder = path.parents[1]
    for number in range(3):
        async with spooling(folder) as rig:
            rig.sink.always = rig.sink.hang(heeds_cancel=True)
            await until(lambda rig=rig: rig.sink.in_progress == 1)  # type: ignore[misc]
            await asyncio.sleep(1)
            copy = copy_of(folder, tmp_path / f"copy {number}")
        folder = copy
    database = MemoryDatabase()
    async with spooling(folder, database) as rig:
        await until(lambda: rig.writer.stats().counts.spooled == 0)
        await rig.writer.flush(10)
    assert len(database.rows) == 25


@virtual_clock
async def test_write_ahead_leaves_nothing_on_the_disk_once_the_sink_has_it(tmp_path: Path) -> None:
    async with spooling(tmp_path, kind=WriteAheadLogWriter, mode="write_ahead", linger_s=0) as rig:
        for _ in range(20):
            place = await rig.writer.reserve(intent=make_record)
            assert isinstance(place, Place)
            place.put(make_record())
            await place.durable()
        await rig.writer.flush(10)
        released = await rig.writer.reserve(intent=make_record)
        assert isinstance(released, Place)
        released.release()
    assert rows_on_disk(tmp_path) == 0


@virtual_clock
async def test_53_a_second_instance_takes_another_folder_and_the_dead_ones_rows_are_adopted(
    tmp_path: Path,
) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database, linger_s=0, fault=fail()) as first:
        async with spooling(tmp_path, database, linger_s=0, fault=fail()) as second:
            await first.put_many(3)
            await second.put_many(4)
            await asyncio.sleep(3)
        assert len(in_folder(tmp_path, "instance-*")) == 2
        first.sink.heal()
        await until(lambda: len(database.rows) == 7)
        assert first.writer.stats().counts.recovered == 4


@virtual_clock
async def test_51_spool_corrupt_rows_that_fail_their_checksum_are_left_out_and_kept_apart(
    tmp_path: Path,
) -> None:
    path = await left_behind(tmp_path, 5)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE rows SET body = X'7b7d' WHERE place = 2")
    database = MemoryDatabase()
    async with spooling(tmp_path, database) as rig:
        await until(lambda: len(database.rows) == 4)
        assert "spool_damaged" in rig.writer.stats().degraded
        assert rig.writer.stats().counts.accepted == 4
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM damaged").fetchone() == (1,)


@virtual_clock
@pytest.mark.parametrize("damage", ["flipped", "cut"])
async def test_51_spool_corrupt_a_damaged_file_is_set_aside_and_its_good_rows_are_delivered(
    tmp_path: Path, damage: str
) -> None:
    path = await left_behind(tmp_path, 400)
    pages = bytearray(path.read_bytes())
    third = len(pages) // 3 // 4096 * 4096
    if damage == "flipped":
        pages[third : third + 4096] = bytes(range(256)) * 16
    else:
        del pages[-third - 100 :]
    path.write_bytes(pages)

    database = MemoryDatabase()
    async with spooling(tmp_path, database) as rig:
        await until(lambda: rig.writer.stats().counts.spooled == 0)
        fresh = await rig.put()
        await until(lambda: fresh in database.rows)
        assert rig.writer.stats().counts.recovered == len(database.rows) - 1 > 100
        assert "spool_damaged" in rig.writer.stats().degraded
    assert in_folder(tmp_path, "instance-*/spool.db.corrupt-*")


@virtual_clock
async def test_51_spool_corrupt_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    path = await left_behind(tmp_path, 5)
    path.write_bytes(b"no database at all" * 1000)

    async with spooling(tmp_path, linger_s=0, fault=fail()) as rig:
        await rig.put_many(3)
    assert rows_on_disk(tmp_path) == 3


@virtual_clock
async def test_51_a_file_that_is_lost_while_we_run_is_counted_and_named_as_lost(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=0, batch_deadline_s=5, fault=fail()) as rig:
        await rig.put_many(3)
        await until(lambda: rig.writer.stats().counts.spooled == 3)
        (folder,) = in_folder(tmp_path, "instance-*")
        shutil.rmtree(folder)
        rig.sink.heal()
        fresh = await rig.put()
        await until(lambda: rig.writer.stats().counts.abandoned == 3)
        await rig.writer.flush(60)
        assert fresh in await rig.stored()


@virtual_clock
async def test_52_disk_full_spool_takes_no_more_than_its_bound_and_frees_it_again(tmp_path: Path) -> None:
    database = MemoryDatabase()
    limits = {"linger_s": 0, "max_rows": 20, "max_queue_rows": 100, "on_full": "spill"}
    async with spooling(tmp_path, database, max_bytes=1024 * 1024, fault=fail(), **limits) as rig:
        got = 0
        while not rig.writer.stats().shed:
            place = await rig.writer.reserve()
            if isinstance(place, Place):
                rig.use(place, tags="x" * 4000)
                got += 1
        assert "spool_full" in rig.writer.stats().degraded
        assert got > 150
        size = sum(path.stat().st_size for path in in_folder(tmp_path, "instance-*/spool.db"))
        assert size < 1.5 * 1024 * 1024
        rig.sink.heal()
        await until(lambda: len(database.rows) == got)
        assert "spool_full" not in rig.writer.stats().degraded


@virtual_clock
async def test_one_more_place_is_on_the_disk_where_a_call_would_have_it_there(tmp_path: Path) -> None:
    limits = {"linger_s": 3600, "max_queue_rows": 2, "max_block_s": 0, "on_full": "spill"}
    async with spooling(tmp_path, **limits) as rig:
        held = [await rig.place(), await rig.place()]

        beyond = rig.writer.reserve_now()

        assert beyond is not None
        for place in (beyond, *held):
            rig.use(place)


@virtual_clock
async def test_52_what_was_left_on_a_disk_that_failed_at_the_start_is_found_later(tmp_path: Path) -> None:
    await left_behind(tmp_path / "spool", 5)
    hidden = (tmp_path / "spool").rename(tmp_path / "away")
    (tmp_path / "spool").write_text("in the way")
    database = MemoryDatabase()
    async with spooling(tmp_path / "spool", database) as rig:
        await rig.put()
        assert "spool_ailing" in rig.writer.stats().degraded
        (tmp_path / "spool").unlink()
        hidden.rename(tmp_path / "spool")
        await until(lambda: len(database.rows) == 6)
        assert rig.writer.stats().counts.recovered == 5
        assert rig.writer.stats().degraded == {}


@virtual_clock
async def test_52_a_single_row_that_neither_sink_nor_disk_takes_is_abandoned_and_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "spool").write_text("in the way")
    async with spooling(
        tmp_path / "spool", kind=SingleLogWriter, attempt_timeout_s=3, fault=fail(), may_abandon=True
    ) as rig:
        place = await rig.place()
        place.put(make_record())
        with pytest.raises(NotDurable, match="abandoned"):
            await place.durable()
        assert rig.writer.close_now().ids_sample == (place.id,)


@virtual_clock
async def test_a_batch_that_keeps_failing_is_fetched_again_after_longer_and_longer_pauses(
    tmp_path: Path,
) -> None:
    await left_behind(tmp_path, 5)

    async with spooling(tmp_path, linger_s=0) as rig:
        good = rig.sink

        async def only_fresh(deliver: Deliver) -> Committed:
            if len(good.writes[-1].row_ids) == 5:
                raise SinkRetryable("not_this_one")
            return await deliver()

        good.always = only_fresh
        for _ in range(600):
            await rig.put()
            await asyncio.sleep(1)
        tries = sum(len(write.row_ids) == 5 for write in good.writes)
        assert 10 < tries < 100, tries


@virtual_clock
async def test_the_numbers_of_crashed_calls_have_no_gap_when_the_disk_fails_meanwhile(tmp_path: Path) -> None:
    ahead = tmp_path / "ahead"
    async with spooling(ahead, kind=WriteAheadLogWriter, mode="write_ahead") as rig:
        for _ in range(3):
            assert isinstance(await rig.writer.reserve(intent=make_record), Place)
        copy = copy_of(ahead, tmp_path / "copy")
        rig.writer.close_now()

    database = MemoryDatabase()
    failures = iter(range(3))
    apply = SpoolStore.apply

    def sometimes(store: SpoolStore, changes: Changes) -> None:
        if changes.batches and next(failures, None) is not None:
            raise sqlite3.OperationalError("disk I/O error")
        apply(store, changes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpoolStore, "apply", sometimes)
        async with spooling(copy, database) as rig:
            await until(lambda: len(database.rows) == 3)
            await rig.put()
            await rig.writer.flush(10)
    assert sorted(row.seq for row in database.rows.values()) == [1, 2, 3, 4]


@virtual_clock
async def test_rows_that_no_sink_took_for_too_long_go_to_the_dead_letters(tmp_path: Path) -> None:
    box = LetterBox()
    async with spooling(tmp_path, linger_s=0, batch_deadline_s=5, max_age_s=60, fault=fail(), box=box) as rig:
        old = [await rig.put(timestamp=datetime.now(UTC) - timedelta(hours=1)) for _ in range(3)]
        await asyncio.sleep(1)
        young = await rig.put(timestamp=datetime.now(UTC) + timedelta(hours=1))
        await until(lambda: rig.writer.stats().counts.dead_lettered == 3)
        assert sorted(box.ids()) == sorted(old)
        assert {letter.code for letter in box.letters} == {"expired"}
        await until(lambda: rig.writer.stats().counts.spooled == 1)
        rig.sink.heal()
        await until(lambda: rig.writer.stats().counts.committed == 1)
        assert await rig.stored() == [young]


@virtual_clock
async def test_what_comes_after_the_spool_was_closed_fails_and_is_heard(tmp_path: Path) -> None:
    spool = Spool(SpoolOptions(path=tmp_path, min_free_bytes=0))
    await spool.open(uuid4())
    await spool.close()

    assert not await spool.keep(make_batch(1))
    with pytest.raises(SpoolUnavailable, match="closed"):
        await spool.next_batch()
