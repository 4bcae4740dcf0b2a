"""What may become of a user's document, each move as a filter and an update. Pure; knows no driver.

Nothing here needs a transaction, for a server alone has none, nor arithmetic on the server, which not every
server knows. So the claims are in the document of their user, ``available_nano`` beside them is what is left
of the limit (of all that can be counted, without one), and what an update counts with stands in its filter:
either the document still is as it was read, or the move does not happen.

Beyond its record such a document has ``available_nano``; ``claims`` by the hex of their ids; ``holds``, how
many claims ever came; ``sweep_at``, before which no claim wants looking after, absent if there is none; and
``budget_version``, of the budget that the account repeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Self, TypeAlias

from .accounts import MAX_ACCOUNT_NANO, Account, limited
from .contract import SWEPT_KEPT_S, Claim
from .mongo_documents import TERMS, Document, account
from .records import MAX_NANO_USD, User
from .rows import ACCOUNT_COLUMNS, account_of

Move: TypeAlias = tuple[Document, Document]
"""A filter and an update."""

SEEN_BY_LIMIT = (*ACCOUNT_COLUMNS, "budget_id", "budget_version")
"""The fields that ``limit`` reads."""
_LEAST_AVAILABLE = MAX_NANO_USD - MAX_ACCOUNT_NANO
"""Down to here the cost of calls is counted, so that under any other limit the number still fits 64 bits."""
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

    def holds(self) -> int:
        """What of the account is held by it."""
        return 0 if self.is_swept else self.amount_nano

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
    countable = {"limit_nano": None, "reserved_nano": {"$lte": MAX_ACCOUNT_NANO - amount}}
    room = {"$or": [countable, {"limit_nano": {"$ne": None}, "available_nano": {"$gte": max(amount, 1)}}]}
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


def settle(claim: Held, cost_nano: int) -> Move:
    """As ``Account.holding`` and ``Account.charged`` say, in the period in which the claim was made, while
    all of the cost can be counted."""
    now = {"$or": [{"period_started_at": None}, {"period_started_at": {"$lte": claim.made_at}}]}
    spent = {"spent_nano": {"$lte": MAX_ACCOUNT_NANO - cost_nano}}
    left = {"available_nano": {"$gte": _LEAST_AVAILABLE + cost_nano - claim.holds()}}
    return {**_guard(claim), **now, **spent, **left}, _settling(claim, cost_nano)


def settle_seen(claim: Held, cost_nano: int, found: Mapping[str, Any]) -> Move:
    """The same for a claim in ``found``, whatever that is like. An account that spent more than can be
    counted stays there, a little earlier than with ``Account.charged``: what is left is counted, too."""
    started_at = found["period_started_at"]
    if started_at and started_at > claim.made_at:
        return {**_guard(claim), "period_started_at": {"$gt": claim.made_at}}, _settling(claim, 0)
    left = found["available_nano"] + claim.holds() - _LEAST_AVAILABLE
    countable = min(left, MAX_ACCOUNT_NANO - found["spent_nano"])
    if countable >= cost_nano:
        return settle(claim, cost_nano)
    condition = {**_guard(claim), **_same(found, "spent_nano", "available_nano", "period_started_at")}
    return condition, _settling(claim, max(0, countable))


def look_again(found: Mapping[str, Any]) -> Move:
    """Note when the claims that are left want looking after, unless one came since."""
    condition = {"_id": found["_id"], "holds": found["holds"]}
    if moments := [each.sweep_at() for each in held(found)]:
        return condition, {"$set": {"sweep_at": min(moments)}}
    return condition, {"$unset": {"sweep_at": ""}}


def _settling(claim: Held, spent_nano: int) -> Document:
    freed = claim.holds()
    return {
        "$inc": {"reserved_nano": -freed, "spent_nano": spent_nano, "available_nano": freed - spent_nano},
        "$unset": {f"claims.{claim.key}": ""},
    }


def _limit(limit_nano: int | None) -> int:
    return MAX_ACCOUNT_NANO if limit_nano is None else limit_nano


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
    left = _limit(account.limit_nano) - account.spent_nano - account.reserved_nano
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
    freed = _limit(new.limit_nano) - _limit(found["limit_nano"]) + found["spent_nano"]
    account_fields = {name: getattr(new, name) for name in ACCOUNT_COLUMNS if name != "reserved_nano"}
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
    condition = {"_id": user.id, **asdict(account_of(user))}
    difference = {"available_nano": user.spent_nano - spent_nano}
    return condition, {"$inc": difference, "$set": {"spent_nano": spent_nano}}


def _limiting(found: Mapping[str, Any], budget: Mapping[str, Any], period: Document) -> Document:
    terms = {name: budget[name] for name in TERMS}
    return {
        "$inc": {"available_nano": budget["limit_nano"] - _limit(found["limit_nano"])},
        "$set": {**terms, **period, "budget_version": budget["version"]},
    }


def _same(found: Mapping[str, Any], *names: str) -> Document:
    return {name: found[name] for name in ("_id", *names)}


def _period(account: Account) -> Document:
    return {"period_started_at": account.period_started_at, "period_ends_at": account.period_ends_at}
