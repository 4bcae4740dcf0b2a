"""Who holds which money, kept in the documents of the users. Awaits the database; ``mongo_moves`` decides.

A move that did not happen met a document that had changed: it is read again, and decided anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from ..errors import StoreUnavailable
from . import mongo_moves as moves
from .contract import Claim, Settlement, Verdict
from .mongo_documents import Document, account
from .mongo_moves import Held, Move, held
from .records import User
from .rows import is_whole

TRIES = 50
"""How often a move may meet a document that had changed. Each time somebody else had come further."""
SEEN = ("_id", "claims", "spent_nano", "available_nano", "period_started_at")
"""The fields that a settlement depends on."""
PAGE = 200
"""How many users are looked at with one question."""


class Table(Protocol):
    """A collection, as far as it is needed here and for records."""

    async def find_one(self, condition: Document, *, without: Sequence[str] = ()) -> Document | None: ...

    async def find(
        self, condition: Document, limit: int, *, only: Sequence[str] = ()
    ) -> Sequence[Document]: ...

    async def insert(self, document: Document) -> None: ...

    async def change(self, move: Move) -> bool: ...

    async def change_each(self, of: Sequence[Move]) -> int: ...

    async def change_all(self, move: Move) -> int: ...

    async def changed(self, move: Move) -> Document | None: ...

    async def delete(self, condition: Document) -> bool: ...


def contention() -> StoreUnavailable:
    """For who tried ``TRIES`` times."""
    return StoreUnavailable("contention", "others changed the same record all the time")


class Accounts:
    """The accounts of the users in one collection."""

    def __init__(self, users: Table) -> None:
        self._users = users

    async def reserve(self, claim: Claim) -> Verdict:
        """As the contract says. With room it is one update."""
        for _ in range(TRIES):
            if await self._users.change(moves.hold(claim)):
                return "held"
            found = await self._users.find_one({"_id": claim.user_id})
            verdict = _refusal(found, claim)
            if verdict is not None or found is None:
                return verdict or "user_missing"
            await self._make_room(found, claim.made_at)
        raise contention()

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """As the contract says: first as if each claim were held and to be charged, which most are."""
        left = {each.claim.id.hex: each for each in reversed(settlements)}
        likely = [moves.settle(Held.of(each.claim), each.cost_nano) for each in left.values()]
        done = await self._users.change_each(likely)
        for _ in range(TRIES):
            if done == len(left):
                return
            pending = await self._pending(left)
            left = {key: left[key] for key in pending}
            done = await self._users.change_each(list(pending.values()))
        raise contention()

    async def sweep(self, now: datetime) -> int:
        """As the contract says."""
        swept, last = 0, None
        while True:
            behind: Document = {"_id": {"$gt": last}} if last is not None else {}
            page = await self._users.find(
                {**behind, "sweep_at": {"$lte": now}}, PAGE, only=("_id", "claims", "holds")
            )
            swept += await self._sweep(page, now)
            if len(page) < PAGE:
                return swept
            last = page[-1]["_id"]

    async def rebuild_spent(self, user: User, spent_nano: int) -> bool:
        """As the contract says."""
        return user.reserved_nano == 0 and await self._users.change(moves.spend(user, spent_nano))

    async def _make_room(self, found: Document, now: datetime) -> None:
        await self._users.change_each([moves.let_go(each) for each in held(found) if each.is_expired(now)])
        if account(found).is_period_over(now):
            await self._users.change(moves.roll(found, now))

    async def _pending(self, settlements: Mapping[str, Settlement]) -> Mapping[str, Move]:
        """What is still to be done of ``settlements``, from what is in the documents now."""
        ids = {each.claim.user_id for each in settlements.values()}
        users = sorted(filter(is_whole, ids))
        pending: dict[str, Move] = {}
        for first in range(0, len(users), PAGE):
            condition = {"_id": {"$in": users[first : first + PAGE]}}
            for found in await self._users.find(condition, PAGE, only=SEEN):
                for claim in held(found):
                    if (each := settlements.get(claim.key)) and each.claim.user_id == claim.user_id:
                        pending[claim.key] = moves.settle_seen(claim, each.cost_nano, found)
        return pending

    async def _sweep(self, page: Sequence[Document], now: datetime) -> int:
        claims = [each for found in page for each in held(found)]
        swept = await self._users.change_each([moves.let_go(each) for each in claims if each.is_expired(now)])
        await self._users.change_each([moves.forget(each) for each in claims if each.is_forgotten(now)])
        ids = [found["_id"] for found in page]
        after = await self._users.find({"_id": {"$in": ids}}, PAGE, only=("_id", "claims", "holds"))
        await self._users.change_each([moves.look_again(found) for found in after])
        return swept


def _refusal(found: Mapping[str, Any] | None, claim: Claim) -> Verdict | None:
    """What is to be said for good; None if there may be room next time."""
    if found is not None and claim.id.hex in found["claims"]:
        return "held"
    if found is None or found["deleted_at"]:
        return "user_missing"
    if found["blocked"]:
        return "user_blocked"
    if any(each.is_expired(claim.made_at) for each in held(found)):
        return None
    now = account(found)
    if now.is_period_over(claim.made_at) or now.has_room_for(claim.amount_nano):
        return None
    return "over_budget"
