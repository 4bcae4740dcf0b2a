"""A question to the stored rows, and one page of the answer. Plain data; sinks translate it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
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
