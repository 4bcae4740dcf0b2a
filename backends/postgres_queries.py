"""What the PostgreSQL sink is asked: pages and summaries of its rows, as SQL and back.

Takes a query; gives its statement and values, and of the answer records and sums. Values are always bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from .postgres_schema import Schema
from .record import UsageRecord
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


class _Where:
    """Conditions and the values in them."""

    def __init__(self, query: UsageQuery | SummaryQuery) -> None:
        self.conditions: list[str] = []
        self.values: list[Any] = []
        for column, value in query.filters:
            if column not in FILTER_COLUMNS:
                raise ValueError(f"usage rows cannot be filtered by {column!r}")
            self.add(f"{column} = {{}}", value) if _is_storable(value) else self.add("false")
        if query.start:
            self.add("timestamp >= {}", query.start)
        if query.end:
            self.add("timestamp < {}", query.end)

    def add(self, condition: str, *values: Any) -> None:
        places = [f"${len(self.values) + n}" for n in range(1, len(values) + 1)]
        self.conditions.append(condition.format(*places))
        self.values += values

    def __str__(self) -> str:
        return f"\nWHERE {' AND '.join(self.conditions)}" if self.conditions else ""


def page_statement(query: UsageQuery, schema: Schema) -> tuple[str, list[Any]]:
    """The statement and its values. Raises ``ValueError`` for a filter that is none of ``FILTER_COLUMNS``."""
    where = _Where(query)
    if query.after:
        where.add("(timestamp, id) < ({}, {})", query.after.timestamp, query.after.id)
    values = [*where.values, query.limit + 1]  # one more tells whether there is a next page
    return schema.statement("select_rows", where=str(where), limit=f"${len(values)}"), values


def page(found: Sequence[Mapping[str, Any]], limit: int) -> UsagePage:
    """The answer to ``page_statement``."""
    rows = tuple(UsageRecord(**each) for each in found[:limit])
    is_last = len(found) <= limit
    return UsagePage(rows, None if is_last else Cursor(rows[-1].timestamp, rows[-1].id))


def summary_statement(query: SummaryQuery, schema: Schema) -> tuple[str, list[Any]]:
    """The statement and its values. Raises ``ValueError`` for a filter or a group that there is not."""
    where = _Where(query)
    keys = "".join(f"{_key(name)}," for name in query.group_by)
    numbers = ", ".join(str(n) for n in range(1, len(query.group_by) + 1))
    group_by = f"\nGROUP BY {numbers}" if numbers else ""
    return schema.statement("sum_groups", keys=keys, where=str(where), group_by=group_by), where.values


def summary(found: Sequence[Sequence[Any]], width: int) -> tuple[SummaryRow, ...]:
    """The answer to ``summary_statement`` with so many keys."""
    rows = [_summary_row(tuple(each[:width]), *each[width:]) for each in found]
    return tuple(sorted(rows, key=lambda row: sort_key(row.key)))


def _summary_row(key: Any, calls: int, errors: int, *sums: Any) -> SummaryRow:
    *tokens, cost, latencies = sums
    prompt, completion, total, cached, reasoning = map(int, tokens)
    p50, p95, p99 = latencies or (None, None, None)
    return SummaryRow(
        key=key,
        calls=calls,
        errors=errors,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        cost=Decimal(cost),
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        latency_p99_ms=p99,
    )


def _key(name: str) -> str:
    if name in GROUP_TIMES:
        return f"date_trunc('{name}', timestamp, 'UTC')"
    if name not in GROUP_COLUMNS:
        raise ValueError(f"usage rows cannot be grouped by {name!r}")
    return name


def _is_storable(text: str) -> bool:
    """Whether the database could hold ``text``; if not, no row has it."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False
