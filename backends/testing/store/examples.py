"""Records and claims of a store, for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any
from uuid import uuid4

from uuid_utils.compat import uuid7

from ...sanitise import clean_text
from ...store.contract import Claim, Settlement
from ...store.records import ApiKey, Budget, PriceEntry, User
from ..records import nasty_texts

CREATED_AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
"""When records that name no time were made."""

storable_texts = tuple(text for text in nasty_texts if clean_text(text, len(text)) == text)
"""Of ``nasty_texts`` those that every database can hold: neither NUL nor half a character."""

NESTED: dict[str, Any] = {
    "texts": list(storable_texts),
    "$where": {".a.b": [[], {}, [None, True, False]], "": "no name"},
    "numbers": [0, -1, 2**53 + 1, 10**30, 1.5, 1e308],
    "deep": {"a": {"b": {"c": {"d": [{"e": "漢"}]}}}},
}
"""Metadata as somebody will send it one day."""


def hash_of(secret: str) -> str:
    """What a store keeps of a secret."""
    return sha256(secret.encode()).hexdigest()


def make_api_key(**overrides: Any) -> ApiKey:
    """A key with a new id and a new secret, of the user ``user-1``."""
    fields: dict[str, Any] = {
        "id": f"key-{uuid4()}",
        "secret_hash": hash_of(str(uuid4())),
        "hint": "tg-abcd",
        "user_id": "user-1",
        "created_at": CREATED_AT,
    }
    return ApiKey(**{**fields, **overrides})


def make_full_api_key(**overrides: Any) -> ApiKey:
    """A key in which no field has its default."""
    fields: dict[str, Any] = {
        "name": "Zoë's key 👩‍👩‍👧‍👦",
        "expires_at": CREATED_AT + timedelta(days=365, milliseconds=1),
        "revoked_at": CREATED_AT + timedelta(hours=1),
        "last_used_at": CREATED_AT + timedelta(milliseconds=999),
        "previous_hash": hash_of(str(uuid4())),
        "previous_expires_at": CREATED_AT + timedelta(minutes=5),
        "allowed_models": ("openai:gpt-4o", "anthropic:*", "schnell,\"'"),
        "rate_limit_rpm": 60,
        "rate_limit_tpm": 2**40,
        "metadata": NESTED,
    }
    return make_api_key(**{**fields, **overrides})


def make_user(id: str = "user-1", **overrides: Any) -> User:
    """A user without a budget."""
    return User(**{"id": id, "created_at": CREATED_AT, **overrides})


def make_budget(id: str = "budget-1", limit_nano: int = 100, **overrides: Any) -> Budget:
    """A budget without an end, of 100 nano-dollars if nothing else is said."""
    return Budget(**{"id": id, "limit_nano": limit_nano, "created_at": CREATED_AT, **overrides})


def make_price(**overrides: Any) -> PriceEntry:
    """A price with a new id, for a model of its own."""
    id = f"price-{uuid4()}"
    fields: dict[str, Any] = {
        "id": id,
        "model": f"openai:{id}",
        "effective_at": CREATED_AT,
        "input_per_million": Decimal("2.50"),
        "output_per_million": Decimal("10"),
        "created_at": CREATED_AT,
    }
    return PriceEntry(**{**fields, **overrides})


def make_claim(amount_nano: int = 10, user_id: str = "user-1", **overrides: Any) -> Claim:
    """A claim with a new id, made in a moment (so later than all records that the test makes), that expires
    fifteen minutes afterwards."""
    made_at = overrides.get("made_at") or now() + timedelta(seconds=10)
    fields: dict[str, Any] = {
        "id": uuid7(),
        "user_id": user_id,
        "amount_nano": amount_nano,
        "made_at": made_at,
        "expires_at": made_at + timedelta(minutes=15),
    }
    return Claim(**{**fields, **overrides})


def settled(claim: Claim, cost_nano: int | None = None) -> Settlement:
    """The end of ``claim``; its cost is what was claimed, if nothing else is said."""
    return Settlement(claim=claim, cost_nano=claim.amount_nano if cost_nano is None else cost_nano)


def now() -> datetime:
    """This moment, as a store keeps it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
