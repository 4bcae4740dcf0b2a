"""Summaries: every group, exact sums, and latencies that some call really had, as worked out by hand.

For a sink that declares no read side, every case asserts that it has none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from ...record import Batch, UsageRecord
from ...sink import UsageReader
from ...usage_query import FILTER_COLUMNS, GROUP_COLUMNS, GROUP_TIMES, SummaryQuery, SummaryRow
from ..naive import naive_summary
from ..records import MOMENT, make_bare_record, make_record, make_varied_records
from .base import SinkCases, bounded, reader_of

HOUR = timedelta(hours=1)
GROUPINGS: tuple[tuple[str, ...], ...] = (
    (),
    *((name,) for name in (*GROUP_COLUMNS, *GROUP_TIMES)),
    ("user_id", "model"),
    ("day", "status"),
    ("model", "hour", "user_id"),
    ("month", "day", "provider"),
    (*GROUP_COLUMNS, "month"),
)


class SummaryCases(SinkCases):
    async def test_no_rows_are_one_group_of_nothing_or_no_group(self) -> None:
        async with self._summarising() as reader:
            if reader:
                (total,) = await _summary(reader)
                assert (total.calls, total.total_tokens, total.cost) == (0, 0, Decimal(0))
                assert (total.latency_p50_ms, total.latency_p99_ms) == (None, None)
                assert await _summary(reader, group_by=("user_id",)) == ()

    async def test_every_grouping_adds_up_as_by_hand(self) -> None:
        rows = make_varied_records(300)

        async with self._summarising(*rows) as reader:
            for group_by in GROUPINGS if reader else ():
                assert reader
                await self._check(reader, rows, group_by=group_by)

    async def test_every_filter_and_time_narrows_as_by_hand(self) -> None:
        rows = make_varied_records(200, seed=2)
        moments = sorted(row.timestamp for row in rows)
        start, end = moments[40], moments[160]

        async with self._summarising(*rows) as reader:
            for column in FILTER_COLUMNS if reader else ():
                assert reader
                value = next(value for row in rows if (value := getattr(row, column)))
                await self._check(reader, rows, filters=((column, value),), group_by=("model", "day"))
            if reader:
                await self._check(reader, rows, start=start, end=end, group_by=("user_id",))
                await self._check(reader, rows, start=start, filters=(("status", "success"),))
                await self._check(reader, rows, end=end, filters=(("model", "fake"), ("provider", "local")))
                assert await _summary(reader, start=end, end=start, group_by=("model",)) == ()

    async def test_start_is_within_a_summary_and_end_is_not(self) -> None:
        rows = [make_record(timestamp=MOMENT + HOUR * n) for n in range(4)]

        async with self._summarising(*rows) as reader:
            if reader:
                (total,) = await _summary(reader, start=rows[1].timestamp, end=rows[3].timestamp)
                assert total.calls == 2

    async def test_times_are_cut_in_utc(self) -> None:
        east = timezone(timedelta(hours=5, minutes=30))
        moments = [
            datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2024, 3, 1, tzinfo=UTC),
            datetime(2024, 3, 1, 5, 29, tzinfo=east),
        ]

        async with self._summarising(*(make_record(timestamp=moment) for moment in moments)) as reader:
            if reader:
                assert [row.key + (row.calls,) for row in await _summary(reader, group_by=GROUP_TIMES)] == [
                    (
                        datetime(2024, 2, 29, 23, tzinfo=UTC),
                        datetime(2024, 2, 29, tzinfo=UTC),
                        datetime(2024, 2, 1, tzinfo=UTC),
                        2,
                    ),
                    (*(datetime(2024, 3, 1, tzinfo=UTC),) * 3, 1),
                ]

    async def test_an_absorbed_row_costs_and_is_no_call(self) -> None:
        seen = make_record(latency_ms=10.0, cost=Decimal("1"), total_tokens=5)
        hidden = make_record(status="absorbed", latency_ms=99.0, cost=Decimal("0.000000001"), total_tokens=7)

        async with self._summarising(seen, hidden) as reader:
            if reader:
                (total,) = await _summary(reader)
                assert (total.calls, total.errors, total.total_tokens) == (1, 0, 12)
                self._check_cost(total.cost, Decimal("1.000000001"))
                assert total.latency_p99_ms == 10.0

    async def test_a_group_of_absorbed_rows_alone_is_there(self) -> None:
        row = make_record(status="absorbed", model="gone", total_tokens=7, latency_ms=5.0)

        async with self._summarising(row) as reader:
            if reader:
                (group,) = await _summary(reader, group_by=("model",))
                assert (group.key, group.calls, group.total_tokens) == (("gone",), 0, 7)
                assert group.latency_p50_ms is None

    async def test_what_is_unknown_adds_nothing(self) -> None:
        async with self._summarising(make_bare_record(), make_record(total_tokens=3)) as reader:
            if reader:
                (total,) = await _summary(reader)
                assert (total.calls, total.total_tokens, total.reasoning_tokens) == (2, 3, 0)
                self._check_cost(total.cost, Decimal("0.000022200"))
                assert total.latency_p50_ms == 812.5

    async def test_unknown_and_empty_are_two_groups_and_unknown_comes_first(self) -> None:
        users = ("b", None, "", "a", "B", "a", None)

        async with self._summarising(*(make_record(user_id=user) for user in users)) as reader:
            if reader:
                found = [(row.key[0], row.calls) for row in await _summary(reader, group_by=("user_id",))]
                assert found == [(None, 2), ("", 1), ("B", 1), ("a", 2), ("b", 1)]

    async def test_sums_may_be_larger_than_any_one_number(self) -> None:
        largest, cost = 2**63 - 1, Decimal("999999999.999999999")
        rows = [make_record(total_tokens=largest, cached_tokens=largest, cost=cost) for _ in range(40)]

        async with self._summarising(*rows) as reader:
            if reader:
                (total,) = await _summary(reader)
                assert (total.total_tokens, total.cached_tokens) == (largest * 40, largest * 40)
                self._check_cost(total.cost, Decimal("39999999999.999999960"))

    async def test_costs_add_up_without_a_trace_of_rounding(self) -> None:
        rows = [make_record(cost=Decimal("0.100000001")) for _ in range(300)]

        async with self._summarising(*rows) as reader:
            if reader:
                (group,) = await _summary(reader, group_by=("provider",))
                self._check_cost(group.cost, Decimal("30.000000300"))

    async def test_latencies_are_by_nearest_rank(self) -> None:
        counts = (1, 2, 3, 19, 20, 21, 99, 100, 101, 200)
        rows = [
            make_record(model=f"{count:03}", latency_ms=float(n)) for count in counts for n in range(count)
        ]

        async with self._summarising(*reversed(rows)) as reader:
            if reader:
                found = {
                    row.key[0]: (row.latency_p50_ms, row.latency_p95_ms, row.latency_p99_ms)
                    for row in await _summary(reader, group_by=("model",))
                }
                assert found == {
                    f"{count:03}": tuple(-(-count * percent // 100) - 1.0 for percent in (50, 95, 99))
                    for count in counts
                }

    async def test_a_row_that_was_sent_twice_counts_once(self) -> None:
        batch = Batch.of(make_varied_records(50, seed=3))

        async with self.open() as sink:
            for again in (batch, batch, Batch.of(batch.rows[10:]), Batch.of(batch.rows[:30])):
                await bounded(sink.write(again))
            if reader := reader_of(sink):
                await self._check(reader, batch.rows, group_by=("status",))
                await self._check(reader, batch.rows)

    async def test_a_filter_of_a_summary_is_a_value_and_never_a_command(self) -> None:
        async with self._summarising(make_record(user_id="o'hara")) as reader:
            for text in ("' OR '1'='1", "%", "$ne", "o'hara\\", "o'hara") if reader else ():
                assert reader
                (total,) = await _summary(reader, filters=(("user_id", text),))
                assert total.calls == (text == "o'hara")

    async def _check(self, reader: UsageReader, rows: Sequence[UsageRecord], **query: Any) -> None:
        """The summary is what anybody can work out from ``rows``."""
        found = await _summary(reader, **query)
        wanted = naive_summary(rows, SummaryQuery(**query))
        assert [row.key for row in found] == [row.key for row in wanted], query
        for mine, right in zip(found, wanted, strict=True):
            self._check_cost(mine.cost, right.cost)
            assert {**asdict(mine), "cost": 0} == {**asdict(right), "cost": 0}, query

    def _check_cost(self, found: Decimal, wanted: Decimal) -> None:
        if self.capabilities.exact_decimal:
            assert found == wanted
        else:
            assert found == pytest.approx(wanted)

    @asynccontextmanager
    async def _summarising(self, *rows: UsageRecord) -> AsyncIterator[UsageReader | None]:
        """The read side of the sink, if it has one, with ``rows`` in it."""
        async with self.open() as sink:
            if rows:
                await bounded(sink.write(Batch.of(rows)))
            yield reader_of(sink)


async def _summary(reader: UsageReader, **query: Any) -> tuple[SummaryRow, ...]:
    return await bounded(reader.summarise_usage(SummaryQuery(**query)))
