"""A question to the stored rows, and one page of the answer. Plain data; sinks translate it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from .record import UsageRecord

MAX_PAGE_ROWS = 1000
FILTER_COLUMNS = ("user_id", "api_key_id", "provider", "model", "endpoint", "status", "request_id")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of a page; the next page starts behind it. Stable while rows are added."""

    timestamp: datetime
    id: UUID

    def encode(self) -> str:
        """The cursor as an opaque, URL-safe text."""
        plain = f"{self.timestamp.isoformat()} {self.id}"
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """The cursor from its text. Raises ``ValueError`` for anything ``encode`` did not make."""
        plain = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
        timestamp, _, row_id = plain.partition(" ")
        moment = datetime.fromisoformat(timestamp)
        if moment.tzinfo is None:
            raise ValueError("a cursor's time has a zone")
        return cls(moment, UUID(row_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """Rows with ``start`` <= timestamp < ``end`` (UTC) whose columns equal ``filters``; at most ``limit``."""

    start: datetime | None = None
    end: datetime | None = None
    filters: tuple[tuple[str, str], ...] = ()
    after: Cursor | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class UsagePage:
    """``rows`` newest first; ``cursor`` is None on the last page."""

    rows: tuple[UsageRecord, ...]
    cursor: Cursor | None = None


GROUP_COLUMNS = ("user_id", "api_key_id", "provider", "model", "endpoint", "status")
GROUP_TIMES = ("hour", "day", "month")
"""Beside the columns: the start of the row's hour, day or month in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryQuery:
    """Rows as in ``UsageQuery``, added up per group. ``group_by`` holds names of ``GROUP_COLUMNS`` and
    ``GROUP_TIMES``; without any there is one group, also of no rows."""

    start: datetime | None = None
    end: datetime | None = None
    filters: tuple[tuple[str, str], ...] = ()
    group_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """One group. ``key`` has a value per name in ``group_by``, None where the rows have none; times are
    datetimes in UTC.

    ``calls``, ``errors`` (status ``error``) and the latencies leave out ``absorbed`` rows; tokens and cost
    count them. Unknown tokens and costs add nothing: ``cost`` is exact, with nine places. The latencies are
    milliseconds by nearest rank: the smallest with at least that share of the calls at or below it.
    """

    key: tuple[str | datetime | None, ...]
    calls: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: Decimal
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
