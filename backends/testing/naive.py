"""The answers of the read side, worked out the slow and obvious way, to hold against a sink's.

Takes all rows; gives what a page or a summary of them has to be. Shares no code with any sink.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from ..numbers import NumberedRow, Run
from ..record import UsageRecord
from ..usage_query import SummaryQuery, SummaryRow, UsageQuery

_TIME_FORMATS = {"hour": "%Y-%m-%d %H:00:00", "day": "%Y-%m-%d 00:00:00", "month": "%Y-%m-01 00:00:00"}


def naive_rows(rows: Iterable[UsageRecord], query: UsageQuery | SummaryQuery) -> list[UsageRecord]:
    """All of ``rows`` that match times and filters, newest first."""
    found = [
        row
        for row in rows
        if (query.start is None or query.start <= row.timestamp)
        and (query.end is None or row.timestamp < query.end)
        and all(getattr(row, column) == value for column, value in query.filters)
    ]
    return sorted(found, key=lambda row: (row.timestamp, row.id), reverse=True)


def naive_summary(rows: Iterable[UsageRecord], query: SummaryQuery) -> list[SummaryRow]:
    """The groups of ``rows``, in the order in which every sink gives them."""
    members: dict[tuple[str | datetime | None, ...], list[UsageRecord]] = {} if query.group_by else {(): []}
    for row in naive_rows(rows, query):
        members.setdefault(_key(row, query.group_by), []).append(row)
    groups = [_summary_row(key, rows_of_key) for key, rows_of_key in members.items()]
    return sorted(groups, key=lambda group: [(value is not None, str(value)) for value in group.key])


def naive_runs(rows: Iterable[UsageRecord]) -> tuple[Run, ...]:
    """The runs of ``rows``, as every auditor gives them."""
    numbers: dict[tuple[UUID, int], list[UsageRecord]] = {}
    for row in rows:
        if row.boot_id and row.seq > 0:
            numbers.setdefault((row.boot_id, row.seq), []).append(row)
    starts = [key for key in numbers if (key[0], key[1] - 1) not in numbers]
    return tuple(_run(boot_id, first, numbers) for boot_id, first in sorted(starts))


def naive_repeated(rows: Iterable[UsageRecord]) -> tuple[NumberedRow, ...]:
    """The rows of one boot that share their number."""
    every = list(rows)
    taken = [row.seq for row in every]
    return tuple(sorted(NumberedRow(row.seq, row.id) for row in every if taken.count(row.seq) > 1))


def _run(boot_id: UUID, first: int, numbers: dict[tuple[UUID, int], list[UsageRecord]]) -> Run:
    last = first
    while (boot_id, last + 1) in numbers:
        last += 1
    rows = [row for seq in range(first, last + 1) for row in numbers[boot_id, seq]]
    return Run(boot_id, first, last, len(rows), max(row.timestamp for row in rows))


def _key(row: UsageRecord, group_by: Sequence[str]) -> tuple[str | datetime | None, ...]:
    return tuple(
        _start_of(row.timestamp, name) if name in _TIME_FORMATS else getattr(row, name) for name in group_by
    )


def _start_of(moment: datetime, name: str) -> datetime:
    start = moment.astimezone(UTC).strftime(_TIME_FORMATS[name])
    return datetime.strptime(start, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)


def _summary_row(key: tuple[str | datetime | None, ...], rows: Sequence[UsageRecord]) -> SummaryRow:
    calls = [row for row in rows if row.status != "absorbed"]
    return SummaryRow(
        key=key,
        calls=len(calls),
        errors=len([row for row in calls if row.status == "error"]),
        prompt_tokens=sum(row.prompt_tokens or 0 for row in rows),
        completion_tokens=sum(row.completion_tokens or 0 for row in rows),
        total_tokens=sum(row.total_tokens or 0 for row in rows),
        cached_tokens=sum(row.cached_tokens or 0 for row in rows),
        reasoning_tokens=sum(row.reasoning_tokens or 0 for row in rows),
        cost=Decimal(sum(int(row.cost * 10**9) for row in rows if row.cost is not None)) / 10**9,
        latency_p50_ms=_nearest_rank(calls, 50),
        latency_p95_ms=_nearest_rank(calls, 95),
        latency_p99_ms=_nearest_rank(calls, 99),
    )


def _nearest_rank(calls: Sequence[UsageRecord], percent: int) -> float | None:
    latencies = sorted(row.latency_ms for row in calls if row.latency_ms is not None)
    for latency in latencies:
        if 100 * len([each for each in latencies if each <= latency]) >= percent * len(latencies):
            return latency
    return None
