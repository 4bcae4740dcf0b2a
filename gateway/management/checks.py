"""What a value has to be for every store to hold it unchanged, and to give the same back. Pure.

Each check gives the value as it is kept, or raises ``ValueError`` with a text that says what would be right
and shows no value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from backends import to_millisecond

from ..query_parameters import is_storable

MAX_TEXT: Final = 256
MAX_METADATA_BYTES: Final = 4096
MAX_METADATA_DEPTH: Final = 16
MAX_WHOLE: Final = 2**53
"""The largest whole number that every reader of JSON, and every database, keeps as it is."""
PLAIN_NUMBER: Final = r"^(0|[1-9][0-9]*)(\.[0-9]+)?$"
DURATION: Final = r"^[1-9][0-9]{0,8}(s|m|h|d|w|mo|y)$"
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
_MOMENT_HINT = "is a time with its zone, such as 2026-01-31T23:59:59Z, from 1970 to 9999"
_PLAIN_NUMBER, _DURATION = re.compile(PLAIN_NUMBER.strip("^$")), re.compile(DURATION.strip("^$"))
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})", re.I
)
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "mo": 30 * 86400, "y": 365 * 86400}
_MIN_DURATION_S, _MAX_DURATION_S = 30, 365 * 86400


def duration_s(text: str) -> int:
    """The seconds of ``30s``, ``15m``, ``1h``, ``1d``, ``1w``, ``1mo`` (30 days) or ``1y`` (365 days)."""
    match = _DURATION.fullmatch(text)
    unit = match[1] if match else ""
    seconds = int(text.removesuffix(unit)) * _UNITS_S[unit] if match else 0
    if not _MIN_DURATION_S <= seconds <= _MAX_DURATION_S:
        raise ValueError("is a number with a unit (s, m, h, d, w, mo, y), from 30s to 1y")
    return seconds


def duration(text: str) -> str:
    """``text``, which ``duration_s`` reads."""
    duration_s(text)
    return text


def moment(value: Any) -> datetime:
    """The time in a text of RFC 3339, cut to the millisecond."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError(_MOMENT_HINT)
    try:
        found = to_millisecond(datetime.fromisoformat(value.upper()))
    except (ValueError, OverflowError):
        raise ValueError(_MOMENT_HINT) from None
    if not _EARLIEST <= found <= _LATEST:
        raise ValueError(_MOMENT_HINT)
    return found


def storable(text: str) -> str:
    """``text`` without what some database refuses."""
    if not is_storable(text):
        raise ValueError("holds a character that cannot be stored: NUL, or half of a surrogate pair")
    return text


def user_id(text: str) -> str:
    """``text``, if it can stand in a path and be read."""
    if not text.isprintable() or text != text.strip() or text in (".", ".."):
        raise ValueError("has visible characters, with no blank at either end, and is neither . nor ..")
    return text


def metadata(value: Any) -> Any:
    """An object of plain JSON values, whose exact decimals become the nearest binary numbers."""
    plain = _plain(value, MAX_METADATA_DEPTH)
    if len(json.dumps(plain, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
        raise ValueError(f"is longer than {MAX_METADATA_BYTES} bytes of JSON")
    return plain


def _plain(value: Any, depth: int) -> Any:
    if depth < 0:
        raise ValueError(f"is nested deeper than {MAX_METADATA_DEPTH}")
    if isinstance(value, Mapping):
        return {storable(name): _plain(each, depth - 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, depth - 1) for each in value]
    if isinstance(value, str):
        return storable(value)
    return value if isinstance(value, bool) or value is None else _number(value)


def _number(value: int | float | Decimal) -> int | float:
    number = value if isinstance(value, int) else float(value)
    if abs(number) > MAX_WHOLE if isinstance(number, int) else number - number != 0:
        raise ValueError("holds a number that JSON readers do not keep")
    return number


def amount(value: Any, most: int, places: int) -> Decimal:
    """USD, given as a number or as text, without sign, exponent or zeros at the end: equal amounts are the
    same."""
    hint = f"is a number from 0 to {most} with at most {places} places, as a number or as text"
    if isinstance(value, str) and len(value) <= MAX_TEXT and _PLAIN_NUMBER.fullmatch(value):
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= most:
        raise ValueError(hint)
    exact = value if isinstance(value, Decimal) else Decimal(value)
    # Bounded before it is written out: an exponent of a million is a million digits.
    if exact and int(exact.as_tuple().exponent) < -MAX_TEXT:
        raise ValueError(hint)
    plain = plain_number(exact)
    if len(plain.partition(".")[2]) > places:
        raise ValueError(hint)
    return Decimal(plain)


def plain_number(exact: Decimal) -> str:
    """Its digits alone, as few as there are."""
    if not exact:
        return "0"
    text = f"{exact:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
