"""The spool's file is not measured after every job, and keeps to ``max_bytes`` all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from backends.errors import SpoolUnavailable
from backends.record import MAX_ROW_BYTES, TEXT_LIMITS, Batch, UsageRecord
from backends.spool import SpoolOptions
from backends.spool.changes import Changes
from backends.spool.disk import SpoolDisk
from backends.testing import make_record

MAX_BYTES = 4 * 1024 * 1024
AT_ONCE = 10
"""Rows of one job: by so many the file may pass its bound."""
LONGEST = "\U0001f600"
STATES = ("status", "end_reason", "usage_source")


def small() -> UsageRecord:
    return make_record()


def largest() -> UsageRecord:
    """Every text as long as its column has it, of the characters that take the most bytes."""
    in_bytes = ("error_message", "tags")
    texts = {
        name: LONGEST * (limit // 4 if name in in_bytes else limit) for name, limit in TEXT_LIMITS.items()
    }
    return make_record(**{name: text for name, text in texts.items() if name not in STATES})


def disk_in(folder: Path) -> SpoolDisk:
    return SpoolDisk(SpoolOptions(path=folder, max_bytes=MAX_BYTES, min_free_bytes=0))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SpoolDisk]:
    found = disk_in(tmp_path)
    found.attempt(found.sign)
    yield found
    found.close()


def in_use(disk: SpoolDisk) -> int:
    assert disk._store is not None
    return disk._store.size()


def as_batch(rows: list[UsageRecord]) -> Changes:
    return Changes(batches=[Batch.of(tuple(rows))])


def fill(
    disk: SpoolDisk,
    make: Callable[[], UsageRecord] = small,
    writing: Callable[[list[UsageRecord]], Changes] = as_batch,
) -> list[UUID]:
    """Rows until the disk says that it is full; those that it took."""
    taken: list[UUID] = []
    for _ in range(MAX_BYTES // AT_ONCE // 100):
        rows = [make() for _ in range(AT_ONCE)]
        try:
            disk.attempt(partial(disk.apply, writing(rows)))
        except SpoolUnavailable as error:
            assert str(error) == "full"
            return taken
        taken += [row.id for row in rows]
        assert in_use(disk) <= MAX_BYTES + AT_ONCE * MAX_ROW_BYTES, f"after {len(taken)} rows"
    raise AssertionError("it never was full")


@pytest.mark.parametrize("make", [small, largest])
@pytest.mark.parametrize(
    "writing",
    [as_batch, lambda rows: Changes(rows=rows), lambda rows: Changes(intents=rows)],
    ids=["batches", "rows", "intents"],
)
def test_a_file_that_is_filled_ends_at_its_bound_and_not_long_before(
    disk: SpoolDisk, make: Callable[[], UsageRecord], writing: Callable[[list[UsageRecord]], Changes]
) -> None:
    fill(disk, make, writing)

    assert in_use(disk) > MAX_BYTES - AT_ONCE * MAX_ROW_BYTES


def test_the_room_of_rows_that_went_is_given_again_and_again(disk: SpoolDisk) -> None:
    for _ in range(3):
        taken = fill(disk)
        disk.attempt(partial(disk.apply, Changes(dropped_rows=taken)))

        assert 0.9 * MAX_BYTES < disk.room_bytes <= MAX_BYTES - in_use(disk)


def test_rows_taken_over_from_a_dead_sibling_count_against_the_bound(tmp_path: Path) -> None:
    dead, heir = disk_in(tmp_path), disk_in(tmp_path)
    for each in (dead, heir):
        each.attempt(each.sign)
    fill(dead)
    dead.close()

    while not heir.attempt(heir.adopt):
        assert heir.room_bytes <= MAX_BYTES - in_use(heir)
    fill(heir)

    heir.close()
