"""A row that somebody deletes by hand is found by its number, wherever the rows are kept."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeAlias
from uuid import UUID

import pytest
from servers.places import PLACES
from uuid_utils.compat import uuid7

from backends.auditing import Audited, audit_usage
from backends.memory import memory_database
from backends.record import Batch, Boot
from backends.sink import SinkOptions, UsageAuditor, UsageReader
from backends.testing import MOMENT, make_record
from backends.testing.naive import naive_repeated, naive_runs
from backends.testing.rig import running
from backends.usage_query import UsageQuery

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs servers

ROWS = 30
Delete: TypeAlias = Callable[[UUID], Awaitable[None]]


@dataclass
class Audit:
    """A sink that can be audited, and a way around it to delete a row."""

    sink: Any
    delete: Delete
    folder: Path

    async def found(self, kept_since: datetime | None = None) -> Audited:
        """What an audit of it finds."""
        assert isinstance(self.sink, UsageAuditor)
        return await audit_usage(self.sink, self.folder / "spool", self.folder / "spool-dead", kept_since)

    async def missing(self) -> str:
        """The numbers that are missing of the one boot that there is."""
        (boot,) = (await self.found()).boots
        return str(boot.missing)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def options(request: pytest.FixtureRequest, place: str, tmp_path: Path) -> SinkOptions:
    PLACES[place].load()
    return PLACES[place].options(request, tmp_path)


@pytest.fixture
def delete(request: pytest.FixtureRequest, place: str, options: Any) -> Delete:
    """How somebody deletes a row there, by hand."""
    fixture = PLACES[place].fixture
    own: Any = request.getfixturevalue(fixture) if fixture else None

    async def delete(row_id: UUID) -> None:
        if fixture == "postgres":
            await own.run(f"DELETE FROM usage_logs WHERE id = '{row_id}'")
        elif fixture == "mongo":
            with own.connected() as database:
                assert database["usage_logs"].delete_one({"_id": row_id}).deleted_count == 1
        elif fixture == "clickhouse":
            own.run(f"DELETE FROM usage_logs WHERE id = '{row_id}'")
        elif place == "sqlite":
            with closing(sqlite3.connect(options.path, isolation_level=None)) as connection:
                connection.execute("DELETE FROM usage_logs WHERE id = ?", [str(row_id)])
        else:
            del memory_database(options.database).rows[row_id]

    return delete


@pytest.fixture
async def audit(place: str, options: SinkOptions, delete: Delete, tmp_path: Path) -> AsyncIterator[Audit]:
    sink_class: Any = PLACES[place].load()
    async with sink_class.open(options) as sink:
        yield Audit(sink, delete, tmp_path)


async def stored_by_a_writer(sink: Any) -> dict[int, UUID]:
    """A writer takes some rows and closes; their ids by their numbers."""
    limits = {**type(sink).batching_defaults, "linger_s": 0, "max_rows": 7}
    async with running(sink, **limits) as rig:
        await rig.put_many(ROWS)
    assert isinstance(sink, UsageReader)
    page = await sink.read_usage(UsageQuery(limit=1000))
    assert sorted(row.seq for row in page.rows) == list(range(1, ROWS + 1))
    return {row.seq: row.id for row in page.rows}


async def test_after_a_clean_end_nothing_is_missing(audit: Audit) -> None:
    await stored_by_a_writer(audit.sink)

    (boot,) = (await audit.found()).boots

    assert boot.is_whole and (boot.state, boot.known_to, len(boot.stored)) == ("closed", ROWS, ROWS)


async def test_a_row_deleted_from_the_middle_is_found(audit: Audit) -> None:
    ids = await stored_by_a_writer(audit.sink)

    await audit.delete(ids[17])

    assert await audit.missing() == "17"


async def test_the_last_row_of_a_closed_boot_is_found_when_it_is_gone(audit: Audit) -> None:
    ids = await stored_by_a_writer(audit.sink)

    await audit.delete(ids[ROWS])

    (boot,) = (await audit.found()).boots
    assert (str(boot.missing), str(boot.missing_tail)) == (f"{ROWS}", f"{ROWS}")


async def test_the_first_row_and_several_together_are_found(audit: Audit) -> None:
    ids = await stored_by_a_writer(audit.sink)

    for number in (1, 8, 9, 10, 29):
        await audit.delete(ids[number])

    assert await audit.missing() == "1,8-10,29"


async def test_a_boot_that_never_closed_misses_what_is_below_its_last_row(audit: Audit) -> None:
    boot_id = uuid7()
    rows = tuple(make_record(boot_id=boot_id, seq=n) for n in (1, 2, 4, 5))
    await audit.sink.write(Batch.of(rows))

    await audit.delete(rows[-1].id)

    (boot,) = (await audit.found()).boots
    assert (boot.state, str(boot.missing), boot.known_to) == ("never_closed", "3", 4)


async def test_two_rows_with_one_number_are_named(audit: Audit) -> None:
    boot_id = uuid7()
    rows = tuple(make_record(boot_id=boot_id, seq=n) for n in (1, 2, 2, 3))
    await audit.sink.write(Batch.of(rows))

    (boot,) = (await audit.found()).boots

    assert boot.repeated == naive_repeated(rows)
    assert not boot.missing


async def test_what_retention_removed_is_not_missed(audit: Audit) -> None:
    boot_id, began = uuid7(), datetime.now(UTC) - timedelta(days=10)
    rows = tuple(
        make_record(boot_id=boot_id, seq=n, timestamp=began + timedelta(days=n)) for n in range(1, 10)
    )
    await audit.sink.write(Batch.of(rows))
    await audit.sink.record_boot(Boot(id=boot_id, started_at=began, closed_at=began, last_seq=9))

    for number in (1, 2, 3, 7):
        await audit.delete(rows[number - 1].id)

    (boot,) = (await audit.found(kept_since=began + timedelta(days=3.5))).boots
    assert (str(boot.retired), str(boot.missing)) == ("1-3", "7")


async def test_a_thousand_rows_of_many_boots_have_the_runs_that_anybody_would_find(audit: Audit) -> None:
    rng, boots = Random(5), [uuid7() for _ in range(5)]
    rows = [
        make_record(
            boot_id=rng.choice([*boots, None]),
            seq=rng.randrange(150),
            timestamp=MOMENT + timedelta(minutes=rng.randrange(60 * 24 * 40)),
        )
        for _ in range(1000)
    ]
    for at in range(0, 1000, 250):
        await audit.sink.write(Batch.of(tuple(rows[at : at + 300])))

    assert await audit.sink.read_runs() == naive_runs(rows)
    for boot_id in boots:
        own = [row for row in rows if row.boot_id == boot_id and row.seq > 0]
        assert await audit.sink.read_repeated(boot_id, 1000) == naive_repeated(own)
