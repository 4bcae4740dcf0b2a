"""Rows turned into columns of checked values, for a sink whose driver checks little.

Takes rows; gives a list per column, in the order of ``COLUMNS``, in which every value is one that the column
can hold: ids as integers of 128 bits, times as microseconds since 1970, costs with nine places. A driver that
is handed anything else may cut it, wrap it, or store what nobody can read. Pure functions, for any thread.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from itertools import compress
from typing import Any, TypeAlias
from uuid import UUID

from .errors import Rejection, SinkRowsRejected
from .record import COLUMNS, UsageRecord

Values: TypeAlias = Sequence[Any]
Convert: TypeAlias = Callable[[Values], Values]
"""A column as it is sent. Raises one of ``_UNFIT`` for a value that the column cannot hold."""

TIMESTAMP = COLUMNS.index("timestamp")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_END_OF_TIME = (datetime(2262, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_NANO = Decimal("1e-9")
_MONEY = Context(prec=18, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])
_UNFIT = (TypeError, ValueError, ArithmeticError, AttributeError)
_FIELDS = operator.attrgetter(*COLUMNS)


def columns_of(rows: Sequence[UsageRecord]) -> list[Values]:
    """The columns of ``rows``, of which there is at least one. Raises ``SinkRowsRejected``, with every row
    that has a value of a wrong type or beyond its column's range; nothing else is wrong with the others."""
    columns: list[Values] = list(zip(*map(_FIELDS, rows), strict=True))
    rejected: dict[int, Rejection] = {}
    for index, name in enumerate(COLUMNS):
        try:
            columns[index] = _CONVERT[name](columns[index])
        except _UNFIT:
            rejected = {**_culprits(name, columns[index]), **rejected}
    if rejected:
        raise SinkRowsRejected(dict(sorted(rejected.items())))
    return columns


def by_month(columns: Sequence[Values]) -> dict[str, list[Values]]:
    """``columns`` cut at the ends of months (UTC), by ``YYYYMM``; in each the rows keep their order."""
    moments = columns[TIMESTAMP]
    if _month(min(moments)) == _month(max(moments)):
        return {_month(moments[0]): list(columns)}
    months = [_month(moment) for moment in moments]
    return {
        month: [list(compress(column, [each == month for each in months])) for column in columns]
        for month in sorted(set(months))
    }


def microseconds(moment: datetime) -> int:
    """``moment`` since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def _month(moment: int) -> str:
    return (_EPOCH + timedelta(microseconds=moment)).strftime("%Y%m")


def _culprits(name: str, column: Values) -> dict[int, Rejection]:
    """Which of the rows it was: each value is asked alone."""
    found = {}
    for index, value in enumerate(column):
        try:
            _CONVERT[name]([value])
        except _UNFIT as error:
            found[index] = Rejection(type(error).__name__, f"{name} holds a value that cannot be stored")
    return found


# --- kinds of columns


def _ids(column: Values) -> Values:
    if not all(isinstance(value, UUID) for value in column):
        raise TypeError
    return [value.int for value in column]


def _texts(column: Values) -> Values:
    "".join(column).encode()  # the whole column at once: TypeError or UnicodeEncodeError
    return column


def _flags(column: Values) -> Values:
    if not all(isinstance(value, bool) for value in column):
        raise TypeError
    return column


def _integers(bits: int) -> Convert:
    highest = 2 ** (bits - 1) - 1

    def convert(column: Values) -> Values:
        values = list(map(operator.index, column))
        if min(values) < -highest - 1 or max(values) > highest:
            raise OverflowError
        return values

    return convert


def _floats(column: Values) -> Values:
    return array("d", column)


def _costs(column: Values) -> Values:
    values = [_MONEY.quantize(value, _NANO) for value in column]  # InvalidOperation beyond eighteen digits
    if not all(map(Decimal.is_finite, values)):
        raise ValueError
    return values


def _moments(column: Values) -> Values:
    values = [(value - _EPOCH) // _MICROSECOND for value in column]  # TypeError for a time without zone
    if min(values) < 0 or max(values) >= _END_OF_TIME:
        raise OverflowError
    return values


def _optional(convert: Convert) -> Convert:
    """``convert``, for a column whose values may be unknown."""

    def convert_known(column: Values) -> Values:
        known = [value for value in column if value is not None]
        if not known:
            return column
        converted = convert(known)
        if len(known) == len(column):
            return converted
        values = iter(converted)
        return [None if value is None else next(values) for value in column]

    return convert_known


_CONVERT: Mapping[str, Convert] = {
    **dict.fromkeys(("request_id", "endpoint", "status", "end_reason", "usage_source"), _texts),
    **dict.fromkeys(
        ("api_key_id", "user_id", "route", "provider", "model", "error_code", "error_message", "tags"),
        _optional(_texts),
    ),
    **dict.fromkeys(
        ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens"),
        _optional(_integers(64)),
    ),
    "id": _ids,
    "boot_id": _optional(_ids),
    "timestamp": _moments,
    "seq": _integers(64),
    "status_code": _optional(_integers(32)),
    "stream": _flags,
    "cost": _optional(_costs),
    "latency_ms": _optional(_floats),
    "ttft_ms": _optional(_floats),
}
