"""The records of the store, as plain frozen data, and money as whole numbers.

Money is counted in nano-dollars (10**-9 USD), the nine places that a row's cost has: sums of whole numbers
are exact in every database. Times are UTC, cut to the millisecond, which every database keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, ClassVar, TypeAlias

NANO_PER_USD = 1_000_000_000
MAX_NANO_USD = 10**18
"""A thousand million USD: the largest amount that one claim or one call is counted with, so that sums of them
fit 64 bits for as long as anybody is in business."""


def nano_usd(amount: Decimal, *, rounding: str = ROUND_HALF_EVEN) -> int:
    """``amount`` USD in nano-dollars, at most ``MAX_NANO_USD``. ``rounding`` as in ``decimal``."""
    if amount * NANO_PER_USD >= MAX_NANO_USD:
        return MAX_NANO_USD
    return int((amount * NANO_PER_USD).to_integral_value(rounding))


def usd(nano: int) -> Decimal:
    """``nano`` nano-dollars in USD, exactly."""
    return Decimal(nano).scaleb(-9)


def to_millisecond(moment: datetime) -> datetime:
    """``moment`` in UTC, cut to the millisecond. Raises ``ValueError`` for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a time of the store has a zone")
    moment = moment.astimezone(UTC)
    return moment - timedelta(microseconds=moment.microsecond % 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key. ``secret_hash`` is the SHA-256 of the secret in hex; the secret itself is nowhere. ``hint``
    are its first characters, for people. ``previous_hash`` opens too until ``previous_expires_at``: the
    secret before the last rotation. ``user_id`` is never empty: a key without a user has one made for it.
    ``allowed_models`` None: all. Limits are per minute, None: none."""

    id: str
    secret_hash: str
    hint: str
    user_id: str
    name: str | None = None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    previous_hash: str | None = None
    previous_expires_at: datetime | None = None
    allowed_models: tuple[str, ...] | None = None
    rate_limit_rpm: int | None = None
    rate_limit_tpm: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One user, with the account that the budget's limit is checked against: ``limit_nano`` (None: none) and
    ``reset_every_s`` are the budget's, ``spent_nano`` is what was settled since ``period_started_at``,
    ``reserved_nano`` what calls under way hold. ``period_ends_at`` None: the period has no end. The account
    is written by ``Store`` alone; ``Store.update`` does not take its fields. A user that was deleted stays,
    for its logs."""

    id: str
    alias: str | None = None
    budget_id: str | None = None
    blocked: bool = False
    rate_limit_rpm: int | None = None
    rate_limit_tpm: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime
    deleted_at: datetime | None = None
    limit_nano: int | None = None
    reset_every_s: int | None = None
    spent_nano: int = 0
    reserved_nano: int = 0
    period_started_at: datetime | None = None
    period_ends_at: datetime | None = None

    kind: ClassVar[str] = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What each of its users may spend: ``limit_nano`` nano-dollars in every ``reset_every_s`` seconds, or
    once and for all. ``reset_every`` is the same as text (``30s`` to ``1y``), as it was given."""

    id: str
    name: str | None = None
    limit_nano: int
    reset_every: str | None = None
    reset_every_s: int | None = None
    created_at: datetime

    kind: ClassVar[str] = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceEntry:
    """What a model (``provider:model``) costs from ``effective_at`` on, until a later entry of the same model
    takes over; USD. One entry for each model and time."""

    id: str
    model: str
    effective_at: datetime
    input_per_million: Decimal
    output_per_million: Decimal
    cached_input_per_million: Decimal | None = None
    reasoning_per_million: Decimal | None = None
    per_image: Decimal | None = None
    per_request: Decimal | None = None
    created_at: datetime

    kind: ClassVar[str] = "price"


Record: TypeAlias = ApiKey | User | Budget | PriceEntry


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """A key and its user, found with one question."""

    key: ApiKey
    user: User
