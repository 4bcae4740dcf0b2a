"""Adds rows up, for sinks whose database cannot: one pass, exact money, latencies by nearest rank.

Takes records in any order; gives the groups in the order of their keys. Holds per group its sums and eight
bytes per call; no row is kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from typing import TypeAlias

from .record import UsageRecord
from .usage_query import SummaryQuery, SummaryRow

Key: TypeAlias = tuple[str | datetime | None, ...]

_EXACT = Context(prec=100, traps=[Inexact])
_ZERO = Decimal("0.000000000")
_SHARES = (Fraction(50, 100), Fraction(95, 100), Fraction(99, 100))


def summarise(rows: Iterable[UsageRecord], query: SummaryQuery) -> tuple[SummaryRow, ...]:
    """The groups of ``rows``, which match ``query`` already."""
    summary = Summary(query)
    for row in rows:
        summary.add(row)
    return summary.rows()


class Summary:
    """The groups so far. Without ``group_by`` there is one group from the start."""

    def __init__(self, query: SummaryQuery) -> None:
        self._group_by = query.group_by
        self._groups: dict[Key, _Group] = {} if query.group_by else {(): _Group()}

    def add(self, row: UsageRecord) -> None:
        """Count ``row`` in its group."""
        key = tuple(group_value(row, name) for name in self._group_by)
        self._groups.setdefault(key, _Group()).add(row)

    def rows(self) -> tuple[SummaryRow, ...]:
        """The groups, in the order of ``sort_key``."""
        return tuple(self._groups[key].row(key) for key in sorted(self._groups, key=sort_key))


@dataclass(slots=True)
class _Group:
    calls: int = 0
    errors: int = 0
    tokens: list[int] = field(default_factory=lambda: [0] * 5)
    cost: Decimal = _ZERO
    latencies: array[float] = field(default_factory=lambda: array("d"))

    def add(self, row: UsageRecord) -> None:
        counts = (
            row.prompt_tokens,
            row.completion_tokens,
            row.total_tokens,
            row.cached_tokens,
            row.reasoning_tokens,
        )
        self.tokens = [known + (count or 0) for known, count in zip(self.tokens, counts, strict=True)]
        self.cost = _EXACT.add(self.cost, row.cost or _ZERO)
        if row.status == "absorbed":
            return
        self.calls += 1
        self.errors += row.status == "error"
        if row.latency_ms is not None:
            self.latencies.append(row.latency_ms)

    def row(self, key: Key) -> SummaryRow:
        ordered = sorted(self.latencies)
        p50, p95, p99 = (nearest_rank(ordered, share) for share in _SHARES)
        prompt, completion, total, cached, reasoning = self.tokens
        return SummaryRow(
            key=key,
            calls=self.calls,
            errors=self.errors,
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=total,
            cached_tokens=cached,
            reasoning_tokens=reasoning,
            cost=self.cost,
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            latency_p99_ms=p99,
        )


def nearest_rank(ordered: list[float], share: Fraction) -> float | None:
    """The smallest of ``ordered`` with at least ``share`` of them at or below it; None of none."""
    if not ordered:
        return None
    rank = -(-len(ordered) * share.numerator // share.denominator)  # exact: a float share is off by one
    return ordered[rank - 1]


def group_value(row: UsageRecord, name: str) -> str | datetime | None:
    """The value by which ``row`` is grouped under ``name``."""
    if name not in ("hour", "day", "month"):
        value: str | None = getattr(row, name)
        return value
    moment = row.timestamp.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if name == "hour":
        return moment
    return moment.replace(hour=0) if name == "day" else moment.replace(hour=0, day=1)


def sort_key(key: Key) -> tuple[tuple[bool, str], ...]:
    """The order of groups, the same for every sink: value by value as text, unknown first."""
    return tuple(
        (value is not None, value.isoformat() if isinstance(value, datetime) else value or "")
        for value in key
    )
