"""An intent whose row got past the journal: the disk failed in between, and the row went on in memory.

Found by `make chaos`: answered calls, disk full for two seconds under ``write_ahead``, SIGTERM with the sink
down, and the next start stored each as the row of a crash, in place of the row that had its tokens and cost.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from disks import copy_of, failing_disk, full_disk, intent, spool_of, spooling

from backends import Place
from backends.memory import MemoryDatabase
from backends.record import Batch, UsageRecord
from backends.sanitise import sanitise
from backends.spool.changes import Changes
from backends.spool.store import SpoolStore
from backends.testing import fail, make_record, virtual_clock
from backends.testing.rig import Rig, until
from backends.write_ahead import WriteAheadLogWriter

JOURNALLED = {"kind": WriteAheadLogWriter, "mode": "write_ahead"}


def found_after_a_restart(path: Path, *changes: Changes) -> list[str]:
    store = SpoolStore(path, "normal")
    for each in changes:
        store.apply(each)
    store.close()
    store = SpoolStore(path, "normal")
    try:
        store.recover()
        rows, after = [], 0
        while (found := store.next_batch(after)) is not None:
            after, batch = found
            rows += batch.rows
        return [row.end_reason for row in rows]
    finally:
        store.close()


def test_a_row_kept_in_a_batch_is_not_replaced_by_the_intent_of_its_call(tmp_path: Path) -> None:
    row = make_record(end_reason="complete")

    found = found_after_a_restart(
        tmp_path / "spool.db", Changes(intents=[row]), Changes(batches=[Batch.of([row])])
    )

    assert found == ["complete"]


def test_a_row_that_is_safe_elsewhere_leaves_no_intent_behind(tmp_path: Path) -> None:
    row = make_record(end_reason="complete")

    found = found_after_a_restart(
        tmp_path / "spool.db", Changes(intents=[row]), Changes(dropped_rows=[row.id])
    )

    assert found == []


async def begun(rig: Rig) -> Place:
    """A call whose provider is about to be asked."""
    place = await rig.writer.reserve(intent=intent())
    assert isinstance(place, Place), place
    return place


async def stored_by_the_next_run(folder: Path, place: Place) -> UsageRecord:
    database = MemoryDatabase()
    async with spooling(folder, database, **JOURNALLED):
        await until(lambda: place.id in database.rows)
    return database.rows[place.id]


@virtual_clock
async def test_a_row_put_after_the_close_is_stored_as_it_was_given(tmp_path: Path) -> None:
    """A call that ends later than the second signal lets it."""
    async with spooling(tmp_path, **JOURNALLED) as rig:
        place = await begun(rig)
        await rig.writer.stop(0)
        place.put(make_record(prompt_tokens=77))
        assert rig.writer.stats().counts.spooled == 1

    row = await stored_by_the_next_run(tmp_path, place)
    assert (row.status, row.prompt_tokens) == ("success", 77)


@virtual_clock
async def test_a_row_whose_journal_failed_for_a_moment_is_stored_as_it_was_given(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=0, batch_deadline_s=5, fault=fail(), **JOURNALLED) as rig:
        place = await begun(rig)
        with failing_disk():
            place.put(make_record(prompt_tokens=77))
            await place.durable()
        await until(lambda: rig.writer.stats().counts.spooled == 1)

    row = await stored_by_the_next_run(tmp_path, place)
    assert (row.status, row.prompt_tokens) == ("success", 77)


@virtual_clock
async def test_a_row_that_met_a_full_disk_is_stored_as_it_was_given(tmp_path: Path) -> None:
    async with spooling(tmp_path, linger_s=0, fault=fail(), **JOURNALLED) as rig:
        place = await begun(rig)
        with full_disk():
            await spool_of(rig).look_after()
            place.put(make_record(prompt_tokens=77))
            await place.durable()
            assert "spool_full" in rig.writer.stats().degraded
            assert (await rig.writer.stop(2)).stats.counts.spooled == 1

    row = await stored_by_the_next_run(tmp_path, place)
    assert (row.status, row.prompt_tokens) == ("success", 77)


@virtual_clock
async def test_the_row_of_a_crashed_call_is_as_clean_as_any_other(tmp_path: Path) -> None:
    dirty = intent(user_id="a\x00b\ud800" + "x" * 300)
    async with spooling(tmp_path / "before", **JOURNALLED) as rig:
        place = await rig.writer.reserve(intent=dirty)
        assert isinstance(place, Place)
        copy = copy_of(tmp_path / "before", tmp_path / "after")
        place.release()

    row = await stored_by_the_next_run(copy, place)
    assert row.user_id == sanitise(dirty()).user_id != dirty().user_id


@virtual_clock
async def test_an_intent_that_cannot_be_made_leaks_no_place(tmp_path: Path) -> None:
    def broken() -> UsageRecord:
        raise RuntimeError("a bug")

    async with spooling(tmp_path, **JOURNALLED) as rig:
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await rig.writer.reserve(intent=broken)
        assert rig.writer.stats().queue_rows == 0
