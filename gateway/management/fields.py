"""The kinds of values that the management API takes: bounded so that every store holds them unchanged.

A validator's text says what would be right, and shows no value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from backends import to_millisecond, usd

from ..query_parameters import is_storable

MAX_TEXT = 256
MAX_METADATA_BYTES = 4096
MAX_METADATA_DEPTH = 16
MAX_WHOLE = 2**53
"""The largest whole number that every reader of JSON, and every database, keeps as it is."""
MAX_BUDGET_USD = 1_000_000_000
MAX_PRICE_USD = 1_000_000
MAX_PRICE_PLACES = 18
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
PLAIN_NUMBER = r"^(0|[1-9][0-9]*)(\.[0-9]+)?$"
_PLAIN_NUMBER = re.compile(PLAIN_NUMBER[:-1] + r"\Z")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})", re.I
)
_DURATION = re.compile(r"([1-9][0-9]{0,8})(s|m|h|d|w|mo|y)")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "mo": 30 * 86400, "y": 365 * 86400}
_MIN_DURATION_S, _MAX_DURATION_S = 30, 365 * 86400


def duration_s(text: str) -> int:
    """The seconds of ``30s``, ``15m``, ``1h``, ``1d``, ``1w``, ``1mo`` (30 days) or ``1y`` (365 days). Raises
    ``ValueError`` for any other text, and beyond 30s to 1y."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if not _MIN_DURATION_S <= seconds <= _MAX_DURATION_S:
        raise ValueError("is a number with a unit (s, m, h, d, w, mo, y), from 30s to 1y")
    return seconds


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    hint = "is a time with its zone, such as 2026-01-31T23:59:59Z, from 1970 to 9999"
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError(hint)
    try:
        moment = to_millisecond(datetime.fromisoformat(value.upper()))
    except (ValueError, OverflowError):
        raise ValueError(hint) from None
    if not EARLIEST <= moment <= LATEST:
        raise ValueError(hint)
    return moment


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("holds a character that cannot be stored: NUL, or half of a surrogate pair")
    return text


def _name_of_user(text: str) -> str:
    if not text.isprintable() or text != text.strip() or text in (".", ".."):
        raise ValueError("has visible characters, with no blank at either end, and is neither . nor ..")
    return text


def _metadata(value: Any) -> Any:
    plain = _plain(value, MAX_METADATA_DEPTH)
    if len(json.dumps(plain, ensure_ascii=False).encode()) > MAX_METADATA_BYTES:
        raise ValueError(f"is longer than {MAX_METADATA_BYTES} bytes of JSON")
    return plain


def _plain(value: Any, depth: int) -> Any:
    """``value`` as every database holds it: exact decimals become the nearest binary number."""
    if depth < 0:
        raise ValueError(f"is nested deeper than {MAX_METADATA_DEPTH}")
    if isinstance(value, Mapping):
        return {_storable(name): _plain(each, depth - 1) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, depth - 1) for each in value]
    if isinstance(value, str):
        return _storable(value)
    return value if isinstance(value, bool) or value is None else _number(value)


def _number(value: int | float | Decimal) -> int | float:
    number = value if isinstance(value, int) else float(value)
    if abs(number) > MAX_WHOLE if isinstance(number, int) else number - number != 0:
        raise ValueError("holds a number that JSON readers do not keep")
    return number


def _amount(most: int, places: int) -> BeforeValidator:
    hint = f"is a number from 0 to {most} with at most {places} places, as a number or as text"

    def check(value: Any) -> Decimal:
        if isinstance(value, str) and len(value) <= MAX_TEXT and _PLAIN_NUMBER.match(value):
            value = Decimal(value)
        if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= most:
            raise ValueError(hint)
        amount = value if isinstance(value, Decimal) else Decimal(value)
        if amount and int(amount.as_tuple().exponent) < -MAX_TEXT:
            raise ValueError(hint)
        plain = _shortest(amount)
        if len(plain.partition(".")[2]) > places:
            raise ValueError(hint)
        return Decimal(plain)

    return BeforeValidator(check)


def _shortest(amount: Decimal) -> str:
    """Digits alone: neither sign nor exponent, nor zeros at the end, so that equal amounts are the same."""
    if not amount:
        return "0"
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def amount_text(nano: int) -> str:
    """``nano`` nano-dollars as the API shows money: USD with nine places."""
    return f"{usd(nano):.9f}"


def moment_text(moment: datetime) -> str:
    """``moment`` as the API shows times: UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _amount_schema(most: int, places: int, text: str) -> WithJsonSchema:
    number = {"type": "number", "minimum": 0, "maximum": most}
    digits = {"type": "string", "pattern": PLAIN_NUMBER, "maxLength": MAX_TEXT}
    description = f"{text}, exact: at most {places} places. Send text where a number would lose digits."
    return WithJsonSchema({"anyOf": [number, digits], "description": description, "examples": ["0.15"]})


_DATE_TIME = WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T23:59:59Z"]})

# --- what is taken

Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_storable)]
UserId: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT, examples=["ann"]), AfterValidator(_name_of_user)
]
ModelNames: TypeAlias = Annotated[
    list[Text],
    Field(
        min_length=1, max_length=100, description="null: all", examples=[["openai:gpt-4o-mini", "local:*"]]
    ),
]
PerMinute: TypeAlias = Annotated[int, Field(ge=1, le=MAX_WHOLE, description="null: no limit")]
Moment: TypeAlias = Annotated[datetime, BeforeValidator(_moment), _DATE_TIME]
Metadata: TypeAlias = Annotated[
    dict[str, Any],
    AfterValidator(_metadata),
    Field(description=f"At most {MAX_METADATA_BYTES} bytes as JSON.", examples=[{"team": "search"}]),
]
BudgetUsd: TypeAlias = Annotated[
    Decimal, _amount(MAX_BUDGET_USD, 9), _amount_schema(MAX_BUDGET_USD, 9, "USD in one period")
]
PriceUsd: TypeAlias = Annotated[
    Decimal, _amount(MAX_PRICE_USD, MAX_PRICE_PLACES), _amount_schema(MAX_PRICE_USD, MAX_PRICE_PLACES, "USD")
]
PricedModel: TypeAlias = Annotated[
    str,
    Field(max_length=MAX_TEXT, pattern=r"^[^:/\s]+:\S+$", examples=["openai:gpt-4o-mini"]),
    AfterValidator(_storable),
]


def _duration(text: str) -> str:
    duration_s(text)
    return text


Duration: TypeAlias = Annotated[
    str,
    AfterValidator(_duration),
    Field(
        pattern=r"^[1-9][0-9]{0,8}(s|m|h|d|w|mo|y)$",
        description="30s to 1y; a month has 30 days, a year 365. null: never.",
        examples=["1mo"],
    ),
]

# --- what is shown

ShownMoment: TypeAlias = Annotated[datetime, PlainSerializer(moment_text, return_type=str), _DATE_TIME]
ShownUsd: TypeAlias = Annotated[
    int,
    PlainSerializer(amount_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]+\.[0-9]{9}$", "examples": ["12.500000000"]}),
]
ShownPrice: TypeAlias = Annotated[
    Decimal,
    PlainSerializer(_shortest, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PLAIN_NUMBER, "examples": ["0.15"]}),
]
