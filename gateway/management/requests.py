"""What the management API takes, as types: closed, strict, bounded. In a ``…Change`` only what is given
counts, and null clears."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from backends import to_millisecond

from .fields import (
    BudgetUsd,
    Duration,
    Metadata,
    ModelNames,
    Moment,
    PerMinute,
    PricedModel,
    PriceUsd,
    Text,
    UserId,
)

MAX_OVERLAP_S = 7 * 24 * 3600


class Request(BaseModel):
    """Base of all: an unknown member is an error, nothing is guessed, and no error shows what was given."""

    # Built with the first request, as answers are with the first of them.
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, defer_build=True
    )


class Change(Request):
    """Base of those that change only what they name."""

    model_config = ConfigDict(json_schema_extra=lambda schema: _drop_defaults(schema))

    def given(self) -> dict[str, Any]:
        """The members that were named, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class KeyCreate(Request):
    """A key to be made. Without ``user_id`` a user ``apikey-<id>`` is made for it."""

    name: Text | None = None
    user_id: UserId | None = None
    expires_at: Moment | None = None
    allowed_models: ModelNames | None = None
    rate_limit_rpm: PerMinute | None = None
    rate_limit_tpm: PerMinute | None = None
    metadata: Metadata = {}


class KeyChange(Change):
    """What is to change of a key."""

    name: Text | None = None
    user_id: UserId = ""
    expires_at: Moment | None = None
    allowed_models: ModelNames | None = None
    rate_limit_rpm: PerMinute | None = None
    rate_limit_tpm: PerMinute | None = None
    metadata: Metadata | None = None


class KeyRotate(Request):
    """``overlap_s``: for how many seconds the secret before opens, too."""

    overlap_s: int = Field(default=3600, ge=0, le=MAX_OVERLAP_S)


class UserCreate(Request):
    """A user to be made."""

    user_id: UserId
    alias: Text | None = None
    budget_id: Text | None = None
    blocked: bool = False
    rate_limit_rpm: PerMinute | None = None
    rate_limit_tpm: PerMinute | None = None
    metadata: Metadata = {}


class UserChange(Change):
    """What is to change of a user. Another ``budget_id`` begins a new period with nothing spent."""

    alias: Text | None = None
    budget_id: Text | None = None
    blocked: bool = False
    rate_limit_rpm: PerMinute | None = None
    rate_limit_tpm: PerMinute | None = None
    metadata: Metadata | None = None


class BudgetCreate(Request):
    """What each of its users may spend in a period, or once and for all."""

    name: Text | None = None
    max_usd: BudgetUsd
    reset_every: Duration | None = None


class BudgetChange(Change):
    """What is to change of a budget, for all its users at once. What they spent in this period is kept."""

    name: Text | None = None
    max_usd: BudgetUsd = Decimal()
    reset_every: Duration | None = None


def _now() -> datetime:
    return to_millisecond(datetime.now(UTC))


class PriceCreate(Request):
    """What a model costs from ``effective_at`` on (default: now), until a later price of it takes over."""

    model: PricedModel
    effective_at: Moment | None = None
    input_per_million: PriceUsd
    output_per_million: PriceUsd
    cached_input_per_million: PriceUsd | None = None
    reasoning_per_million: PriceUsd | None = None
    per_image: PriceUsd | None = None
    per_request: PriceUsd | None = None


class PriceChange(Change):
    """What is to change of a price that is not in force yet."""

    effective_at: Moment = Field(default_factory=_now)
    input_per_million: PriceUsd = Decimal()
    output_per_million: PriceUsd = Decimal()
    cached_input_per_million: PriceUsd | None = None
    reasoning_per_million: PriceUsd | None = None
    per_image: PriceUsd | None = None
    per_request: PriceUsd | None = None


def _drop_defaults(schema: dict[str, Any]) -> None:
    for each in schema["properties"].values():
        each.pop("default", None)
