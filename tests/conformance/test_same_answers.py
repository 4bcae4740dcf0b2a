"""The same rows give the same answers, wherever they are kept: to the last digit, in the same order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from servers.places import PLACES

from backends.codec import to_json
from backends.memory import MemoryDatabase, MemorySink
from backends.record import Batch, UsageRecord
from backends.sanitise import sanitise
from backends.sink import SinkOptions, UsageReader
from backends.testing import (
    MOMENT,
    make_bare_record,
    make_full_record,
    make_record,
    make_varied_records,
    nasty_texts,
)
from backends.usage_query import FILTER_COLUMNS, GROUP_COLUMNS, GROUP_TIMES, Cursor, SummaryQuery, UsageQuery

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs servers

DAY = timedelta(days=1)
PERIODS: tuple[dict[str, Any], ...] = (
    {},
    {"start": MOMENT + DAY * 9},
    {"end": MOMENT + DAY * 30},
    {"start": MOMENT + DAY * 9, "end": MOMENT + DAY * 30},
    {"start": MOMENT + DAY * 4000},
)
FILTERS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("user_id", "ann"),),
    (("user_id", "漢字"), ("status", "success")),
    (("model", "fake"), ("provider", "local"), ("endpoint", "/v1/embeddings")),
    (("status", "absorbed"),),
    (("request_id", "req-7"),),
    (("user_id", "nobody"),),
)
GROUPINGS: tuple[tuple[str, ...], ...] = (
    (),
    *((name,) for name in (*GROUP_COLUMNS, *GROUP_TIMES)),
    ("user_id", "month"),
    ("hour", "model", "status"),
    (*GROUP_TIMES, *GROUP_COLUMNS),
)


def generated_rows() -> tuple[UsageRecord, ...]:
    """Rows as they come in a year, and as they should never come."""
    texts = [make_record(user_id=text, model=text, error_message=text) for text in nasty_texts]
    extremes = [make_full_record(), make_bare_record(), make_record(cost=None, latency_ms=0.0)]
    together = [make_record(timestamp=MOMENT, user_id=f"user-{n % 3}") for n in range(20)]
    return tuple(map(sanitise, (*make_varied_records(300, seed=7), *texts, *extremes, *together)))


@dataclass
class Both:
    """The sink in question, and the one that is the specification, with the same rows in them."""

    sink: UsageReader
    reference: UsageReader


@pytest.fixture(params=PLACES)
def options(request: pytest.FixtureRequest, tmp_path: Path) -> SinkOptions:
    place = PLACES[request.param]
    place.load()
    return place.options(request, tmp_path)


@pytest.fixture
async def both(request: pytest.FixtureRequest, options: SinkOptions) -> AsyncIterator[Both]:
    rows = generated_rows()
    sink_class: Any = PLACES[request.node.callspec.params["options"]].load()
    async with sink_class.open(options) as sink:
        for part in (rows[:200], rows[100:], rows[50:150]):  # what is sent twice is there once
            await sink.write(Batch.of(part))
        yield Both(sink, MemorySink(MemoryDatabase({row.id: row for row in rows})))


async def pages(reader: UsageReader, page_rows: int, **asked: Any) -> list[tuple[list[Any], str | None]]:
    """Every page, as the API shows it, with its cursor."""
    found: list[tuple[list[Any], str | None]] = []
    after: Cursor | None = None
    while not found or after:
        page = await reader.read_usage(UsageQuery(**asked, after=after, limit=page_rows))
        after = page.cursor
        found.append(([to_json(row) for row in page.rows], after.encode() if after else None))
    return found


async def summary(reader: UsageReader, **asked: Any) -> Sequence[str]:
    """Every group, to the last digit and the type of each value."""
    return [repr(row) for row in await reader.summarise_usage(SummaryQuery(**asked))]


@pytest.mark.parametrize("page_rows", [13, 100, 1000])
async def test_the_pages_of_all_rows_are_the_same(both: Both, page_rows: int) -> None:
    assert await pages(both.sink, page_rows) == await pages(both.reference, page_rows)


async def test_the_pages_of_some_rows_are_the_same(both: Both) -> None:
    for filters in FILTERS:
        for period in PERIODS:
            asked = {**period, "filters": filters}
            assert await pages(both.sink, 50, **asked) == await pages(both.reference, 50, **asked), asked


async def test_a_page_behind_any_row_is_the_same(both: Both) -> None:
    every = await both.reference.read_usage(UsageQuery(limit=1000))

    for row in every.rows[::17]:
        query = UsageQuery(after=Cursor(row.timestamp, row.id), limit=5)
        found, wanted = await both.sink.read_usage(query), await both.reference.read_usage(query)
        assert [to_json(each) for each in found.rows] == [to_json(each) for each in wanted.rows]


async def test_rows_of_every_value_of_a_column_are_the_same(both: Both) -> None:
    every = await both.reference.read_usage(UsageQuery(limit=1000))

    for column in FILTER_COLUMNS:
        values = {getattr(row, column) for row in every.rows} - {None}
        for value in sorted(values)[::11]:
            asked = {"filters": ((column, value),)}
            assert await pages(both.sink, 1000, **asked) == await pages(both.reference, 1000, **asked), asked


async def test_the_summaries_of_all_rows_are_the_same(both: Both) -> None:
    for group_by in GROUPINGS:
        found = await summary(both.sink, group_by=group_by)
        assert found == await summary(both.reference, group_by=group_by), group_by


async def test_the_summaries_of_some_rows_are_the_same(both: Both) -> None:
    for filters in FILTERS:
        for period in PERIODS:
            for group_by in ((), ("model", "day")):
                asked = {**period, "filters": filters, "group_by": group_by}
                assert await summary(both.sink, **asked) == await summary(both.reference, **asked), asked
