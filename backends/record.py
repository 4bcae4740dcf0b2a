"""The usage row, and the batch that carries rows to a sink.

Takes facts about one finished call; gives an immutable record with the contract's columns.
Knows nothing of HTTP, of batching or of any database. Every field is plain data, so that a record
can be kept, compared and sent again without change.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct, structs
from uuid_utils.compat import uuid7

Status: TypeAlias = Literal["success", "error", "cancelled", "rejected", "absorbed"]
EndReason: TypeAlias = Literal[
    "complete",
    "client_disconnect",
    "provider_error",
    "timeout",
    "shutdown",
    "rejected",
    "crash",
    "internal_error",
]
UsageSource: TypeAlias = Literal["provider", "partial", "estimate", "none"]

MAX_TEXT = 256
"""Characters that an ordinary text column holds."""
MAX_ERROR_MESSAGE = 1024
"""Bytes of UTF-8."""
MAX_TAGS = 4096
"""Bytes of UTF-8."""
MAX_ROW_BYTES = 16 * 1024
"""What one place sets aside until its row is there; the column bounds keep every row below it."""

FIXED_BYTES = 512
"""A row's ids, numbers and times, roughly; the texts are measured."""


class UsageRecord(Struct, frozen=True, kw_only=True, gc=False):  # plain data is part of no cycle
    """One call, as it is stored. Costs are USD; times are UTC; ``*_ms`` are milliseconds.

    ``id`` is a UUIDv7 minted when the call began and the idempotency key in every sink.
    ``boot_id`` and ``seq`` are stamped by the ledger when it accepts the row (0 until then).
    ``tags`` is the text of one JSON object. ``None`` means unknown, never zero.
    """

    id: UUID
    request_id: str
    timestamp: datetime
    endpoint: str
    status: Status
    end_reason: EndReason
    boot_id: UUID | None = None
    seq: int = 0
    api_key_id: str | None = None
    user_id: str | None = None
    route: str | None = None
    provider: str | None = None
    model: str | None = None
    status_code: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    stream: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: UsageSource = "none"
    cost: Decimal | None = None
    latency_ms: float | None = None
    ttft_ms: float | None = None
    tags: str | None = None


COLUMNS: tuple[str, ...] = UsageRecord.__struct_fields__
TEXT_LIMITS: dict[str, int] = {
    **dict.fromkeys(
        (
            "request_id",
            "api_key_id",
            "user_id",
            "route",
            "provider",
            "model",
            "endpoint",
            "status",
            "error_code",
            "end_reason",
            "usage_source",
        ),
        MAX_TEXT,
    ),
    "error_message": MAX_ERROR_MESSAGE,
    "tags": MAX_TAGS,
}
"""Characters each text column holds; of ``error_message`` and ``tags``, bytes of UTF-8 (see ``sanitise``)."""

_TEXTS = operator.itemgetter(*map(COLUMNS.index, TEXT_LIMITS))


def row_bytes(record: UsageRecord) -> int:
    """The bytes that ``record`` counts for against the queue's and a batch's bounds."""
    text = all_text(record)
    return FIXED_BYTES + (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))


def all_text(record: UsageRecord) -> str:
    """The texts of ``record`` one after the other, to be looked at as one; what is no text is left out."""
    values = _TEXTS(structs.astuple(record))
    try:
        return "".join(filter(None, values))
    except TypeError:
        return "".join(value for value in values if isinstance(value, str))


def stamped(record: UsageRecord, row_id: UUID, boot_id: UUID, seq: int) -> UsageRecord:
    """``record`` under the identity that the ledger gave it."""
    return structs.replace(record, id=row_id, boot_id=boot_id, seq=seq)


@dataclass(frozen=True, slots=True)
class Batch:
    """An immutable list of rows under one id. A retry sends the same batch under the same id."""

    id: UUID
    rows: tuple[UsageRecord, ...]

    @classmethod
    def of(cls, rows: tuple[UsageRecord, ...]) -> Batch:
        """A batch of ``rows`` under a new id (UUIDv7)."""
        return cls(uuid7(), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One run of one process. ``last_seq`` and ``closed_at`` are known once it closed. ``abandoned``:
    the numbers of the rows that it had to give up, as ranges (``5-9,12``)."""

    id: UUID
    started_at: datetime
    closed_at: datetime | None = None
    last_seq: int | None = None
    abandoned: str = ""
