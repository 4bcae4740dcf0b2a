"""The kinds of values that the management API takes and shows, each with its schema."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from backends import usd

from . import checks
from .checks import MAX_TEXT

MAX_BUDGET_USD = 1_000_000_000
MAX_PRICE_USD = 1_000_000
MAX_PRICE_PLACES = 18


def amount_text(nano: int) -> str:
    """``nano`` nano-dollars as the API shows money: USD with nine places."""
    return f"{usd(nano):.9f}"


def moment_text(moment: datetime) -> str:
    """``moment`` as the API shows times: UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _amount(most: int, places: int) -> BeforeValidator:
    return BeforeValidator(partial(checks.amount, most=most, places=places))


def _amount_schema(most: int, places: int) -> WithJsonSchema:
    number = {"type": "number", "minimum": 0, "maximum": most}
    digits = {"type": "string", "pattern": checks.PLAIN_NUMBER, "maxLength": MAX_TEXT}
    description = f"USD, exact: at most {places} places. Send text where a number would lose digits."
    return WithJsonSchema({"anyOf": [number, digits], "description": description, "examples": ["0.15"]})


_DATE_TIME = WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T23:59:59Z"]})

# --- what is taken

Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(checks.storable)]
UserId: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT, examples=["ann"]), AfterValidator(checks.user_id)
]
ModelNames: TypeAlias = Annotated[
    list[Text],
    Field(min_length=1, max_length=100, description="null: all", examples=[["openai:gpt-4o", "local:*"]]),
]
PerMinute: TypeAlias = Annotated[int, Field(ge=1, le=checks.MAX_WHOLE, description="null: no limit")]
Moment: TypeAlias = Annotated[datetime, BeforeValidator(checks.moment), _DATE_TIME]
Metadata: TypeAlias = Annotated[
    dict[str, Any],
    AfterValidator(checks.metadata),
    Field(description=f"At most {checks.MAX_METADATA_BYTES} bytes as JSON.", examples=[{"team": "search"}]),
]
BudgetUsd: TypeAlias = Annotated[Decimal, _amount(MAX_BUDGET_USD, 9), _amount_schema(MAX_BUDGET_USD, 9)]
PriceUsd: TypeAlias = Annotated[
    Decimal, _amount(MAX_PRICE_USD, MAX_PRICE_PLACES), _amount_schema(MAX_PRICE_USD, MAX_PRICE_PLACES)
]
PricedModel: TypeAlias = Annotated[
    str,
    Field(max_length=MAX_TEXT, pattern=r"^[^:/\s]+:\S+$", examples=["openai:gpt-4o-mini"]),
    AfterValidator(checks.storable),
]
Duration: TypeAlias = Annotated[
    str,
    Field(
        pattern=checks.DURATION,
        description="30s to 1y; a month has 30 days, a year 365. null: never.",
        examples=["1mo"],
    ),
    AfterValidator(checks.duration),
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
    PlainSerializer(checks.plain_number, return_type=str),
    WithJsonSchema({"type": "string", "pattern": checks.PLAIN_NUMBER, "examples": ["0.15"]}),
]
