"""Questions to ClickHouse: a query becomes a statement and its values, an answer becomes rows of ours.

Pure functions. Names of columns come from the lists of the contract alone; everything a caller says is bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from .clickhouse_schema import Schema
from .columns import microseconds
from .numbers import Run
from .record import COLUMNS, Boot, UsageRecord
from .summary import sort_key
from .usage_query import (
    FILTER_COLUMNS,
    GROUP_COLUMNS,
    GROUP_TIMES,
    Cursor,
    SummaryQuery,
    SummaryRow,
    UsagePage,
    UsageQuery,
)

READ_SETTINGS = {
    "do_not_merge_across_partitions_select_final": 1,  # a row's time never changes, nor does its partition
    "enable_extended_results_for_datetime_functions": 1,  # starts of months behind 2106
}

_STARTS = {"hour": "toStartOfHour", "day": "toStartOfDay", "month": "toStartOfMonth"}


def rows_statement(query: UsageQuery, schema: Schema) -> tuple[str, dict[str, Any]]:
    """The statement for the next ``query.limit`` rows, in which a row may come twice, and its values. Raises
    ``ValueError`` for a filter that is none of ``FILTER_COLUMNS``."""
    conditions, values = _conditions(query)
    if query.after:
        conditions.append(
            "(timestamp, toUInt128(id)) < "
            "(fromUnixTimestamp64Micro({after_time:Int64}, 'UTC'), toUInt128({after_id:UUID}))"
        )
        values |= {"after_time": microseconds(query.after.timestamp), "after_id": str(query.after.id)}
    values["limit"] = query.limit
    return schema.statement("select_rows", where=_where(conditions)), values


class Rows:
    """The rows of one page as they come in, each once. One more than the page holds is wanted: it tells
    whether there is a next page."""

    def __init__(self, query: UsageQuery) -> None:
        self._limit = query.limit
        self._found: dict[UUID, UsageRecord] = {}
        self.rest: UsageQuery | None = replace(query, limit=query.limit + 1)
        """What is to be asked next; None once the page is complete."""

    def add(self, found: Sequence[Sequence[Any]]) -> None:
        """Take what ``rest`` found."""
        assert self.rest
        rows = [UsageRecord(**dict(zip(COLUMNS, row, strict=True))) for row in found]
        self._found |= {row.id: row for row in rows}
        if len(rows) < self.rest.limit or len(self._found) > self._limit:
            self.rest = None
        else:
            self.rest = replace(self.rest, after=Cursor(rows[-1].timestamp, rows[-1].id))

    def page(self) -> UsagePage:
        """The page."""
        rows = tuple(self._found.values())
        page = rows[: self._limit]
        return UsagePage(page, Cursor(page[-1].timestamp, page[-1].id) if len(rows) > len(page) else None)


def summary_statement(query: SummaryQuery, schema: Schema) -> tuple[str, dict[str, Any]]:
    """The statement for the groups, and its values. Raises ``ValueError`` as ``rows_statement`` does, and for
    a name to group by that is unknown."""
    conditions, values = _conditions(query)
    keys = [_key(name) for name in query.group_by]
    statement = schema.statement(
        "summarise",
        keys="".join(f"{key}, " for key in keys),
        where=_where(conditions),
        group_by=f"GROUP BY {', '.join(keys)}" if keys else "",
    )
    return statement, values


def summary(found: Sequence[Sequence[Any]], query: SummaryQuery) -> tuple[SummaryRow, ...]:
    """The groups in their order, out of the rows that ``summary_statement`` found."""
    rows = (_summary_row(row, len(query.group_by)) for row in found)
    return tuple(sorted(rows, key=lambda row: sort_key(row.key)))


def boots(found: Sequence[Sequence[Any]]) -> tuple[Boot, ...]:
    """The answer to ``read_boots``."""
    return tuple(
        Boot(
            id=boot_id,
            started_at=_utc(started_at),
            closed_at=_utc(closed_at) if closed_at else None,
            last_seq=last_seq,
            abandoned=abandoned,
        )
        for boot_id, started_at, closed_at, last_seq, abandoned in found
    )


def runs(found: Sequence[Sequence[Any]]) -> tuple[Run, ...]:
    """The answer to ``read_runs``."""
    return tuple(
        Run(boot_id, first, last, rows, _utc(newest)) for boot_id, first, last, rows, newest in found
    )


def _conditions(query: UsageQuery | SummaryQuery) -> tuple[list[str], dict[str, Any]]:
    conditions: list[str] = []
    values: dict[str, Any] = {}
    for number, (column, value) in enumerate(query.filters):
        if column not in FILTER_COLUMNS:
            raise ValueError(f"usage rows cannot be filtered by {column!r}")
        conditions.append(f"{column} = {{filter_{number}:String}}")
        values[f"filter_{number}"] = value
    for name, operator, moment in (("start", ">=", query.start), ("end", "<", query.end)):
        if moment:
            conditions.append(f"timestamp {operator} fromUnixTimestamp64Micro({{{name}:Int64}}, 'UTC')")
            values[name] = microseconds(moment)
    return conditions, values


def _where(conditions: Sequence[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _key(name: str) -> str:
    if name in GROUP_TIMES:
        return f"toDateTime64({_STARTS[name]}(timestamp, 'UTC'), 0, 'UTC')"
    if name not in GROUP_COLUMNS:
        raise ValueError(f"usage rows cannot be grouped by {name!r}")
    return name


def _summary_row(row: Sequence[Any], width: int) -> SummaryRow:
    calls, errors, prompt, completion, total, cached, reasoning, cost, p50, p95, p99 = row[width:]
    return SummaryRow(
        key=tuple(_utc(value) if isinstance(value, datetime) else value for value in row[:width]),
        calls=calls,
        errors=errors,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        cost=cost,
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        latency_p99_ms=p99,
    )


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
