"""What the embedded sink is asked: pages and summaries of its rows, as SQL and back.

Takes a query and a connection of the driver's; gives records and sums, exact to the last digit. Adding up is
the database's work, so memory grows with the groups alone and the rest of the process goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from .codec import from_json, timestamp_text
from .errors import SinkFatal
from .record import COLUMNS, UsageRecord
from .statements import statements
from .summary import Key, sort_key
from .usage_query import (
    FILTER_COLUMNS,
    GROUP_COLUMNS,
    Cursor,
    SummaryQuery,
    SummaryRow,
    UsagePage,
    UsageQuery,
)

_SQL = statements("sqlite")
_TIMES = {
    "hour": ("substr(timestamp, 1, 13)", ":00+00:00"),
    "day": ("substr(timestamp, 1, 10)", "T00+00:00"),
    "month": ("substr(timestamp, 1, 7)", "-01T00+00:00"),
}
"""What is cut from a row's time, and what makes it a whole one again."""


class Connection(Protocol):
    """The part of the driver's connection that reading uses."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Iterable[tuple[Any, ...]]: ...


# --- pages


def page_statement(query: UsageQuery) -> tuple[str, list[Any]]:
    """The statement and its values. Raises ``ValueError`` for a filter that is none of ``FILTER_COLUMNS``."""
    conditions, values = _conditions(query)
    if query.after:
        conditions.append("(timestamp, id) < (?, ?)")
        values += [timestamp_text(query.after.timestamp), str(query.after.id)]
    one_more = query.limit + 1  # tells whether there is a next page
    sql = f"{_SQL['select_rows']}{_where(conditions)}\nORDER BY timestamp DESC, id DESC\nLIMIT ?"
    return sql, [*values, one_more]


def read_page(connection: Connection, sql: str, values: list[Any], limit: int) -> UsagePage:
    """The answer to ``page_statement``."""
    found = list(connection.execute(sql, values))
    rows = tuple(_record(each) for each in found[:limit])
    is_last = len(found) <= limit
    return UsagePage(rows, None if is_last else Cursor(rows[-1].timestamp, rows[-1].id))


def _record(row: tuple[Any, ...]) -> UsageRecord:
    try:
        return from_json(dict(zip(COLUMNS, row, strict=True)))
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise _edited(f"the row {row[0]}") from error


# --- summaries


def summary_statements(query: SummaryQuery) -> tuple[str, str, list[Any]]:
    """The statement that adds up, the one that finds the latencies at their ranks, and the values of either.
    Raises ``ValueError`` for a filter or a grouping that there is not."""
    conditions, values = _conditions(query)
    keys = ", ".join(_key_column(name) for name in query.group_by)
    sums = _SQL["sum_groups"].format(
        keys=keys or "NULL", where=_where(conditions), group_by=f"\nGROUP BY {keys}" if keys else ""
    )
    ranked = _where([*conditions, "status <> 'absorbed'", "latency_ms IS NOT NULL"])
    return sums, _SQL["rank_latencies"].format(keys=keys or "NULL", where=ranked), values


def read_summary(
    connection: Connection, sql: tuple[str, str, list[Any]], group_by: tuple[str, ...]
) -> tuple[SummaryRow, ...]:
    """The answer to ``summary_statements``, of one snapshot of the rows."""
    sums, ranked, values = sql
    width = len(group_by) or 1  # without a grouping the key is one NULL
    latencies: dict[Key, dict[int, float]] = {}
    connection.execute("BEGIN")  # after an error the connection is dropped, and this with it
    for row in connection.execute(ranked, values):
        rank, latency, _ = row[width:]
        latencies.setdefault(_key(group_by, row), {})[rank] = latency
    groups = [(_key(group_by, row), row[width:]) for row in connection.execute(sums, values)]
    connection.execute("COMMIT")
    rows = [_summary_row(key, added, latencies.get(key, {})) for key, added in groups]
    return tuple(sorted(rows, key=lambda row: sort_key(row.key)))


def _summary_row(key: Key, added: tuple[Any, ...], latencies: dict[int, float]) -> SummaryRow:
    calls, errors, timed, *halves = added
    prompt, completion, total, cached, reasoning, nanos = (
        ((high or 0) << 32) + (low or 0) for high, low in zip(halves[::2], halves[1::2], strict=True)
    )
    p50, p95, p99 = (latencies.get(-(-timed * percent // 100)) for percent in (50, 95, 99))
    return SummaryRow(
        key=key,
        calls=calls,
        errors=errors,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        cost=Decimal(nanos).scaleb(-9),  # exact below 10**19 USD
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        latency_p99_ms=p99,
    )


def _key_column(name: str) -> str:
    if name in _TIMES:
        return _TIMES[name][0]
    if name not in GROUP_COLUMNS:
        raise ValueError(f"usage rows cannot be grouped by {name!r}")
    return name


def _key(group_by: tuple[str, ...], row: tuple[Any, ...]) -> Key:
    return tuple(_key_value(name, value) for name, value in zip(group_by, row, strict=False))


def _key_value(name: str, value: Any) -> str | datetime | None:
    if name not in _TIMES:
        return None if value is None else str(value)
    try:
        return datetime.fromisoformat(value + _TIMES[name][1])
    except (TypeError, ValueError) as error:
        raise _edited("the time of a row") from error


# --- both


def _conditions(query: UsageQuery | SummaryQuery) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    for column, value in query.filters:
        if column not in FILTER_COLUMNS:
            raise ValueError(f"usage rows cannot be filtered by {column!r}")
        conditions.append(f"{column} = ?")
        values.append(value)
    for moment, condition in ((query.start, "timestamp >= ?"), (query.end, "timestamp < ?")):
        if moment:
            conditions.append(condition)
            values.append(timestamp_text(moment))
    return conditions, values


def _where(conditions: list[str]) -> str:
    return f"\nWHERE {' AND '.join(conditions)}" if conditions else ""


def _edited(what: str) -> SinkFatal:
    return SinkFatal("row_unreadable", f"{what} was changed by another program")
