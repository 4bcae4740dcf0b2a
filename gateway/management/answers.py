"""What the management API answers, as types made from the store's records. No hash leaves the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from backends import ApiKey, Budget, PriceEntry, User

from .fields import ShownMoment, ShownPrice, ShownUsd

A = TypeVar("A", bound=BaseModel)


class Answer(BaseModel):
    """Base of all."""

    # Built with the first answer: to build all of them takes a fifteenth of each start.
    model_config = ConfigDict(
        extra="forbid", frozen=True, from_attributes=True, hide_input_in_errors=True, defer_build=True
    )


class KeyAnswer(Answer):
    """A key. ``hint`` are the first characters of its secret; ``previous_expires_at`` is the time until
    which the secret before the last rotation opens, too."""

    id: str
    hint: str
    name: str | None
    user_id: str
    created_at: ShownMoment
    expires_at: ShownMoment | None
    revoked_at: ShownMoment | None
    last_used_at: ShownMoment | None
    previous_expires_at: ShownMoment | None
    allowed_models: Sequence[str] | None
    rate_limit_rpm: int | None
    rate_limit_tpm: int | None
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """``key``, shown."""
        return cls.model_validate(key)


class NewKeyAnswer(KeyAnswer):
    """A key with its secret, which is shown this once."""

    key: str = Field(examples=["tg-..."])

    @classmethod
    def with_secret(cls, key: ApiKey, secret: str) -> Self:
        """``key``, shown with its secret."""
        return cls(**dict(KeyAnswer.of(key)), key=secret)


class UserAnswer(Answer):
    """A user, and where it stands with its budget: what was spent in this period, and what calls under way
    hold."""

    user_id: str
    alias: str | None
    budget_id: str | None
    blocked: bool
    rate_limit_rpm: int | None
    rate_limit_tpm: int | None
    metadata: Mapping[str, Any]
    created_at: ShownMoment
    deleted_at: ShownMoment | None
    max_usd: ShownUsd | None
    spent_usd: ShownUsd
    reserved_usd: ShownUsd
    period_started_at: ShownMoment | None
    period_ends_at: ShownMoment | None

    @classmethod
    def of(cls, user: User) -> Self:
        """``user``, shown."""
        names = cls.model_fields.keys() - {"user_id", "max_usd", "spent_usd", "reserved_usd"}
        return cls(
            user_id=user.id,
            max_usd=user.limit_nano,
            spent_usd=user.spent_nano,
            reserved_usd=user.reserved_nano,
            **{name: getattr(user, name) for name in names},
        )


class BudgetAnswer(Answer):
    """A budget."""

    id: str
    name: str | None
    max_usd: ShownUsd
    reset_every: str | None
    created_at: ShownMoment

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """``budget``, shown."""
        return cls(
            id=budget.id,
            name=budget.name,
            max_usd=budget.limit_nano,
            reset_every=budget.reset_every,
            created_at=budget.created_at,
        )


class PriceAnswer(Answer):
    """What a model costs from a time on."""

    id: str
    model: str
    effective_at: ShownMoment
    input_per_million: ShownPrice
    output_per_million: ShownPrice
    cached_input_per_million: ShownPrice | None
    reasoning_per_million: ShownPrice | None
    per_image: ShownPrice | None
    per_request: ShownPrice | None
    created_at: ShownMoment

    @classmethod
    def of(cls, price: PriceEntry) -> Self:
        """``price``, shown."""
        return cls.model_validate(price)


class Page(Answer, Generic[A]):
    """One page. ``cursor`` leads to the next page, if ``has_more``."""

    data: Sequence[A]
    cursor: str | None
    has_more: bool


class KeyPage(Page[KeyAnswer]):
    """Keys, in the order in which they were made."""


class UserPage(Page[UserAnswer]):
    """Users, by id."""


class BudgetPage(Page[BudgetAnswer]):
    """Budgets, in the order in which they were made."""


class PricePage(Page[PriceAnswer]):
    """Prices, in the order in which they were made known."""
