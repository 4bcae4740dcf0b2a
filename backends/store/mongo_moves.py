"""What may become of a user's document, each move as a filter and an update. Pure; knows no driver.

Nothing here needs a transaction, for a server alone has none, nor arithmetic on the server, which not every
server knows. So the claims are in the document of their user, ``available_nano`` beside them is what is left
of the limit (of 0 without one), and what an update counts with stands in its filter: either the document
still is as it was read, or the move does not happen.

Beyond its record such a document has ``available_nano``; ``claims`` by the hex of their ids; ``holds``, how
many claims ever came; ``sweep_at``, before which no claim wants looking after, absent if there is none; and
``budget_version``, of the budget that the account repeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Self, TypeAlias

from .accounts import Account, limited
from .contract import SWEPT_KEPT_S, Claim
from .mongo_documents import ACCOUNT, TERMS, Document, account
from .records import User

Move: TypeAlias = tuple[Document, Document]
"""A filter and an update."""

SEEN_BY_LIMIT = (*ACCOUNT, "budget_id", "budget_version")
"""The fields that ``limit`` reads."""
_KEPT = timedelta(seconds=SWEPT_KEPT_S)


@dataclass(frozen=True, slots=True)
class Held:
    """A claim in a document."""

    user_id: str
    key: str
    amount_nano: int
    made_at: datetime
    expires_at: datetime
    is_swept: bool = False

    @classmethod
    def of(cls, claim: Claim) -> Self:
        return cls(claim.user_id, claim.id.hex, claim.amount_nano, claim.made_at, claim.expires_at)

    def is_expired(self, now: datetime) -> bool:
        """Whether it is to be let go."""
        return not self.is_swept and self.expires_at <= now

    def is_forgotten(self, now: datetime) -> bool:
        return self.is_swept and self.expires_at + _KEPT <= now

    def sweep_at(self) -> datetime:
        """When it wants looking after."""
        return self.expires_at + _KEPT if self.is_swept else self.expires_at


def held(found: Mapping[str, Any]) -> Iterator[Held]:
    """The claims in a user's document."""
    for key, each in found["claims"].items():
        yield Held(found["_id"], key, each["amount"], each["made_at"], each["expires_at"], each["swept"])


# --- claims


def hold(claim: Claim) -> Move:
    """As ``Account.has_room_for`` says, and only in a period that is not over."""
    key, amount = claim.id.hex, claim.amount_nano
    room = {"$or": [{"limit_nano": None}, {"available_nano": {"$gte": max(amount, 1)}}]}
    period = {"$or": [{"period_ends_at": None}, {"period_ends_at": {"$gt": claim.made_at}}]}
    condition = {
        "_id": claim.user_id,
        "deleted_at": None,
        "blocked": False,
        f"claims.{key}": {"$exists": False},
        "$and": [room, period],
    }
    entry = {"amount": amount, "made_at": claim.made_at, "expires_at": claim.expires_at, "swept": False}
    return condition, {
        "$inc": {"reserved_nano": amount, "available_nano": -amount, "holds": 1},
        "$min": {"sweep_at": claim.expires_at},
        "$set": {f"claims.{key}": entry},
    }


def let_go(claim: Held) -> Move:
    """The claim expired: it stays in the document, and holds nothing."""
    freed = {"reserved_nano": -claim.amount_nano, "available_nano": claim.amount_nano}
    return _guard(claim), {"$inc": freed, "$set": {f"claims.{claim.key}.swept": True}}


def forget(claim: Held) -> Move:
    return _guard(claim), {"$unset": {f"claims.{claim.key}": ""}}


def settle(claim: Held, cost_nano: int, *, is_charged: bool) -> Move:
    """As ``Account.holding`` and ``Account.charged`` say."""
    freed = 0 if claim.is_swept else claim.amount_nano
    spent = cost_nano if is_charged else 0
    began_later = {"period_started_at": {"$gt": claim.made_at}}
    counts = {"$or": [{"period_started_at": None}, {"period_started_at": {"$lte": claim.made_at}}]}
    return {**_guard(claim), **(counts if is_charged else began_later)}, {
        "$inc": {"reserved_nano": -freed, "spent_nano": spent, "available_nano": freed - spent},
        "$unset": {f"claims.{claim.key}": ""},
    }


def is_charged(claim: Held, period_started_at: datetime | None) -> bool:
    """Whether ``settle`` has to charge in the period that began then."""
    return period_started_at is None or period_started_at <= claim.made_at


def look_again(found: Mapping[str, Any]) -> Move:
    """Note when the claims that are left want looking after, unless one came since."""
    condition = {"_id": found["_id"], "holds": found["holds"]}
    if moments := [each.sweep_at() for each in held(found)]:
        return condition, {"$set": {"sweep_at": min(moments)}}
    return condition, {"$unset": {"sweep_at": ""}}


def _guard(claim: Held) -> Document:
    here = f"claims.{claim.key}"
    return {
        "_id": claim.user_id,
        f"{here}.amount": claim.amount_nano,
        f"{here}.made_at": claim.made_at,
        f"{here}.swept": claim.is_swept,
    }


# --- accounts


def new_fields(account: Account, version: int) -> Document:
    """The fields of a new user's document that are not those of its record, and those of its account."""
    left = (account.limit_nano or 0) - account.spent_nano - account.reserved_nano
    more = {"available_nano": left, "claims": {}, "holds": 0, "budget_version": version}
    return {**asdict(account), **more}


def roll(found: Mapping[str, Any], now: datetime) -> Move:
    """As ``Account.rolled`` says."""
    old = account(found)
    new = old.rolled(now)
    return _same(found, "spent_nano", "period_ends_at", "reset_every_s"), {
        "$inc": {"available_nano": old.spent_nano},
        "$set": {"spent_nano": 0, **_period(new)},
    }


def begin(found: Mapping[str, Any], new: Account, version: int, more: Document) -> Move:
    """A new account with nothing spent, in which what is held stays held; and ``more`` of the record."""
    freed = (new.limit_nano or 0) - (found["limit_nano"] or 0) + found["spent_nano"]
    account_fields = {name: getattr(new, name) for name in ACCOUNT if name != "reserved_nano"}
    return _same(found, "spent_nano", "limit_nano"), {
        "$inc": {"available_nano": freed},
        "$set": {**account_fields, "budget_version": version, **more},
    }


def limit(found: Mapping[str, Any], budget: Mapping[str, Any]) -> Move:
    """As ``accounts.limited`` says, for one user of ``budget`` that is behind it."""
    new = limited(account(found), budget["limit_nano"], budget["reset_every_s"])
    condition = _same(found, *TERMS, "period_started_at", "budget_id", "budget_version")
    return condition, _limiting(found, budget, _period(new))


def limits_all_alike(found: Mapping[str, Any], budget: Mapping[str, Any]) -> bool:
    """Whether the ends of periods do not depend on where each began."""
    return budget["reset_every_s"] in (None, found["reset_every_s"])


def limit_all(found: Mapping[str, Any], budget: Mapping[str, Any], condition: Document) -> Move:
    """The same for all who meet ``condition`` and whose account has the terms of this one's."""
    is_endless = budget["reset_every_s"] is None
    terms = {name: found[name] for name in TERMS}
    return {**condition, **terms}, _limiting(found, budget, {"period_ends_at": None} if is_endless else {})


def spend(user: User, spent_nano: int) -> Move:
    """``spent_nano`` instead, if the account still is that of ``user`` and holds nothing."""
    condition = {"_id": user.id, **{name: getattr(user, name) for name in ACCOUNT}}
    difference = {"available_nano": user.spent_nano - spent_nano}
    return condition, {"$inc": difference, "$set": {"spent_nano": spent_nano}}


def _limiting(found: Mapping[str, Any], budget: Mapping[str, Any], period: Document) -> Document:
    terms = {name: budget[name] for name in TERMS}
    return {
        "$inc": {"available_nano": budget["limit_nano"] - (found["limit_nano"] or 0)},
        "$set": {**terms, **period, "budget_version": budget["version"]},
    }


def _same(found: Mapping[str, Any], *names: str) -> Document:
    return {name: found[name] for name in ("_id", *names)}


def _period(account: Account) -> Document:
    return {"period_started_at": account.period_started_at, "period_ends_at": account.period_ends_at}
