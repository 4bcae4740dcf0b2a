"""A usage row as a MongoDB document, and back; a question as a filter. Knows no driver and no connection.

Takes and gives dicts of plain values. ``_id`` is the row's id. ``cost`` is a whole number of billionths of a
USD. ``timestamp`` is a date for people, dashboards and the TTL index, cut to milliseconds as BSON has it;
``timestamp_us``, microseconds since 1970, is what is sorted, compared and read.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from types import NoneType
from typing import Any, TypeAlias
from uuid import UUID

from .errors import SinkFatal
from .record import COLUMNS, TEXT_LIMITS, UsageRecord
from .usage_query import FILTER_COLUMNS, Cursor, SummaryQuery, UsagePage, UsageQuery

Document: TypeAlias = dict[str, Any]

NEWEST_FIRST = (("timestamp_us", -1), ("_id", -1))
FIELDS = frozenset({"_id", "timestamp_us", *COLUMNS} - {"id"})
"""What every document has, no more and no less."""

_COUNTS = (
    "seq",
    "status_code",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
)
_TIMES = ("latency_ms", "ttft_ms")
_LEAST, _MOST = -(2**63), 2**63 - 1
_AS_IT_IS = tuple(name for name in COLUMNS if name not in ("id", "timestamp", "cost"))
_plain_values = operator.attrgetter(*_AS_IT_IS)
_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(TEXT_LIMITS, (str, NoneType)),
    **dict.fromkeys(_COUNTS, (int, NoneType)),
    **dict.fromkeys(_TIMES, (float, NoneType, int)),
    **{"boot_id": (UUID, NoneType), "stream": (bool,)},
}
_SUMMED = (*_COUNTS[2:], "status", "cost", "latency_ms", "timestamp_us")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NOT_READ: Document = {
    **dict.fromkeys(FIELDS),
    **{"request_id": "", "endpoint": "", "end_reason": "complete", "seq": 0, "stream": False},
    "usage_source": "none",
}
"""Stands in for the fields that a summary leaves in the database."""


class Unstorable(ValueError):
    """A row that no server is asked to store. ``code`` is short and stable; ``column`` names the culprit."""

    def __init__(self, code: str, column: str) -> None:
        super().__init__(f"{code}: {column}")
        self.code = code
        self.column = column


def document(row: UsageRecord) -> Document:
    """The document of ``row``, a new one each time: drivers write into what they are given. Raises
    ``Unstorable``: what one server stores and the next one refuses is refused here, for all alike."""
    values: Document = dict(zip(_AS_IT_IS, _plain_values(row), strict=True))
    _check(values)
    identity = {"_id": _identity(row), "timestamp": row.timestamp, "timestamp_us": _moment(row)}
    return {**identity, **values, "cost": _billionths(row.cost)}


def record(found: Mapping[str, Any]) -> UsageRecord:
    """The row that ``found`` is the document of. Raises ``KeyError``, ``TypeError``, ``ValueError`` or
    ``ArithmeticError`` for any other document."""
    values = {name: found[name] for name in _AS_IT_IS}
    cost = found["cost"]
    return UsageRecord(
        id=found["_id"],
        timestamp=_EPOCH + found["timestamp_us"] * _MICROSECOND,
        cost=None if cost is None else Decimal(cost).scaleb(-9),
        **values,
    )


def page(found: Sequence[Mapping[str, Any]], limit: int) -> UsagePage:
    """The page of ``found``, which holds one more than ``limit`` if there is a next one. Raises
    ``SinkFatal``."""
    rows = tuple(readable(record, each) for each in found[:limit])
    return UsagePage(rows, Cursor(rows[-1].timestamp, rows[-1].id) if len(found) > limit else None)


def readable(translate: Callable[[Mapping[str, Any]], UsageRecord], found: Mapping[str, Any]) -> UsageRecord:
    """What ``translate`` makes of ``found``. Raises ``SinkFatal`` if that is no row of ours."""
    try:
        return translate(found)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        text = f"the row {found.get('_id')} was changed by another program"
        raise SinkFatal("row_unreadable", text) from error


def partial_record(found: Mapping[str, Any]) -> UsageRecord:
    """As ``record``, from a document of which only some fields were read."""
    return record({**_NOT_READ, **found})


def summed_fields(query: SummaryQuery) -> Sequence[str]:
    """The fields that the answer to ``query`` depends on."""
    return [*_SUMMED, *(name for name in query.group_by if name in COLUMNS)]


def matching(query: UsageQuery) -> Document:
    """The filter that finds the rows of ``query``. Raises ``ValueError`` for a filter that is none of
    ``FILTER_COLUMNS``."""
    conditions: Document = {}
    for column, value in query.filters:
        if column not in FILTER_COLUMNS:
            raise ValueError(f"usage rows cannot be filtered by {column!r}")
        conditions.setdefault("$and", []).append({column: {"$eq": value}})
    if span := _span(query):
        conditions["timestamp_us"] = span
    return {**conditions, **(_behind(query.after) if query.after else {})}


def microseconds(moment: datetime) -> int:
    """``moment`` in microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def _span(query: UsageQuery) -> Document:
    span: Document = {}
    if query.start:
        span["$gte"] = microseconds(query.start)
    if query.end:
        span["$lt"] = microseconds(query.end)
    if query.after:  # says nothing that _behind does not say; it is what an index can be entered by
        span["$lte"] = microseconds(query.after.timestamp)
    return span


def _behind(last: Cursor) -> Document:
    moment = microseconds(last.timestamp)
    return {"$or": [{"timestamp_us": {"$lt": moment}}, {"timestamp_us": moment, "_id": {"$lt": last.id}}]}


def _check(values: Document) -> None:
    for name, kinds in _KINDS.items():
        value = values[name]
        if type(value) not in kinds and not isinstance(value, kinds):  # the first is much faster
            raise Unstorable("wrong_type", name)
    for name in _COUNTS:
        count = values[name]
        if count is not None and not _LEAST <= count <= _MOST:
            raise Unstorable("out_of_range", name)
    for name in _TIMES:
        number = values[name]
        if number is not None and number - number != 0:
            raise Unstorable("not_finite", name)


def _identity(row: UsageRecord) -> UUID:
    if not isinstance(row.id, UUID):
        raise Unstorable("wrong_type", "id")
    return row.id


def _moment(row: UsageRecord) -> int:
    if not isinstance(row.timestamp, datetime) or row.timestamp.tzinfo is None:
        raise Unstorable("wrong_type", "timestamp")
    return microseconds(row.timestamp)


def _billionths(cost: Any) -> int | None:
    if cost is None:
        return None
    if not isinstance(cost, Decimal):
        raise Unstorable("wrong_type", "cost")
    if not cost.is_finite() or abs(cost) >= 2**63 // 10**9:
        raise Unstorable("out_of_range", "cost")
    return int(cost.scaleb(9).to_integral_value(ROUND_HALF_EVEN))
