"""A record as plain JSON values and back: for files, for the HTTP API, for sinks that store documents."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from .record import COLUMNS, UsageRecord

_FIELDS = operator.attrgetter(*COLUMNS)
_TRANSLATED = tuple(map(COLUMNS.index, ("id", "timestamp", "boot_id", "cost")))
"""Where the values are that JSON has no kind for."""
_ENCODE = msgspec.json.Encoder().encode


def timestamp_text(moment: datetime) -> str:
    """``moment`` in UTC, always with six digits of microseconds, so that texts sort as times do."""
    return moment.astimezone(UTC).isoformat("T", "microseconds").replace("+00:00", "Z")


def cost_text(cost: Decimal) -> str:
    """``cost`` with its nine places and no exponent."""
    return f"{cost:.9f}"


def to_json(record: UsageRecord) -> dict[str, Any]:
    """``record`` as a dict of JSON values; ``cost`` is a text, so that no digit is lost."""
    return dict(zip(COLUMNS, plain_values(record), strict=True))


def plain_values(record: UsageRecord) -> tuple[Any, ...]:
    """The values of ``to_json``, in the order of ``COLUMNS``."""
    values = list(_FIELDS(record))
    for index in _TRANSLATED:
        values[index] = _plain(values[index])
    return tuple(values)


def json_bytes(record: UsageRecord) -> bytes:
    """The text of ``to_json`` for a file of ours, or what reads back as the same record."""
    try:
        return _ENCODE(record)
    except (OverflowError, ValueError):  # numbers beyond 64 bits, halves of characters: a sink has to say so
        return json.dumps(to_json(record), separators=(",", ":")).encode()


def from_json(row: Mapping[str, Any]) -> UsageRecord:
    """The record that ``to_json`` made ``row`` from. Raises ``KeyError`` or ``ValueError`` for others."""
    values = {name: row[name] for name in COLUMNS}
    values["id"] = UUID(values["id"])
    values["boot_id"] = UUID(values["boot_id"]) if values["boot_id"] else None
    values["timestamp"] = datetime.fromisoformat(values["timestamp"])
    values["cost"] = None if values["cost"] is None else Decimal(values["cost"])
    values["stream"] = bool(values["stream"])
    return UsageRecord(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return timestamp_text(value)
    if isinstance(value, Decimal):
        return cost_text(value)
    return value
