"""The records of the store, and what a change of one means for others. Awaits the database, knows no driver.

A server alone has no transactions. So a budget's document says which users are being given it, and how many
ever were (``joining``, ``joins``), and it is removed only if neither stands in the way; and each of its terms
has a ``version``, which an account repeats, so that late and interrupted changes of terms end in the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from ..errors import StoreConflict
from . import mongo_moves as moves
from .accounts import new_account
from .mongo_accounts import PAGE, TRIES, Table, contention
from .mongo_documents import TERMS, Document, document, fields_of, matching, record
from .records import ApiKey, Budget, PriceEntry, Record, User, to_millisecond
from .rows import changed_values, refuse_halves, to_row

R = TypeVar("R", bound=Record)

_JOIN = timedelta(minutes=5)
"""Whoever began so long ago to give a user a budget is gone: no request takes a fifth of it."""
_TAKEN: Mapping[type[Any], tuple[str, str]] = {
    ApiKey: ("secret_hash", "another key has this secret"),
    PriceEntry: ("effective_at", "this model has another price from this time on"),
}
_ALONE: Mapping[type[Any], Sequence[str]] = {ApiKey: ("secret_hash",), PriceEntry: ("model", "effective_at")}
"""The fields that no two records of a kind have alike; there are indexes that see to it."""


class Duplicate(Exception):
    """A unique index refused a document."""


class Records:
    """``tables`` has one for each kind of record, by ``Record.kind``."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables
        self._users, self._budgets = tables[User.kind], tables[Budget.kind]

    async def add(self, new: Record) -> None:
        """As the contract says."""
        refuse_halves(to_row(new))
        if isinstance(new, User):
            await self._add_user(new)
        elif isinstance(new, Budget):
            # Begun with the time, so that a budget that is made again is newer than the one removed.
            version = int(_now().timestamp() * 1000)
            await self._insert(new, {"version": version, "joins": 0, "joining": {}})
        else:
            await self._insert(new, {})

    async def get(self, kind: type[R], id: str) -> R | None:
        found = await self._tables[kind.kind].find({"_id": id}, 1, only=fields_of(kind))
        return record(kind, found[0]) if found else None

    async def list(
        self, kind: type[R], after: str | None, limit: int, where: Mapping[str, Any] | None
    ) -> Sequence[R]:
        condition = matching(kind, after, where)
        found = await self._tables[kind.kind].find(condition, limit, only=fields_of(kind))
        return [record(kind, each) for each in found]

    async def update(self, kind: type[R], id: str, changes: Mapping[str, Any]) -> R | None:
        """As the contract says. Raises ``ValueError`` for fields that cannot be changed."""
        values = changed_values(kind, changes)
        refuse_halves(values)
        if kind is User and "budget_id" in values:
            found = await self._begin(id, values)
        elif kind is Budget and any(name in values for name in TERMS):
            found = await self._change_terms(id, values)
        elif values:
            found = await self._change(kind, id, values)
        else:
            return await self.get(kind, id)
        return record(kind, found) if found else None

    async def remove(self, kind: type[R], id: str) -> bool:
        if kind is not Budget:
            return await self._tables[kind.kind].delete({"_id": id})
        for _ in range(TRIES):
            budget = await self._budgets.find_one({"_id": id})
            if budget is None:
                return False
            await self._check_unused(budget)
            if await self._budgets.delete({"_id": id, "joins": budget["joins"]}):
                return True
        raise contention()

    # --- one record

    async def _insert(self, new: Record, more: Document) -> None:
        try:
            await self._tables[new.kind].insert({**document(new), **more})
        except Duplicate:
            pass
        else:
            return
        if await self._tables[new.kind].find_one({"_id": new.id}):
            raise StoreConflict("id", "there is one with this id")
        raise StoreConflict(*_TAKEN[type(new)])

    async def _change(self, kind: type[R], id: str, values: Document) -> Document | None:
        """Asks before it changes what has to be unique: not every server tells afterwards what was wrong."""
        if any(name in values for name in _ALONE.get(kind, ())):
            await self._check_alone(kind, id, values)
        try:
            return await self._tables[kind.kind].changed(({"_id": id}, {"$set": values}))
        except Duplicate:
            raise StoreConflict(*_TAKEN[kind]) from None

    async def _check_alone(self, kind: type[R], id: str, values: Document) -> None:
        table = self._tables[kind.kind]
        found = await table.find_one({"_id": id})
        if found is None:
            return
        wanted = {name: values.get(name, found[name]) for name in _ALONE[kind]}
        if await table.find({**wanted, "_id": {"$ne": id}}, 1, only=("_id",)):
            raise StoreConflict(*_TAKEN[kind])

    # --- a user and a budget

    async def _add_user(self, user: User) -> None:
        token = uuid4().hex
        budget = await self._join(user.budget_id, token)
        try:
            await self._insert(
                user, moves.new_fields(new_account(*_terms(budget), _now()), budget["version"])
            )
        finally:
            await self._leave(budget, token)

    async def _begin(self, id: str, values: Document) -> Document | None:
        """A new account under another budget, or under none."""
        token = uuid4().hex
        found = await self._users.find_one({"_id": id}, without=("claims",))
        if found is None:
            return None
        budget = await self._join(values["budget_id"], token)
        try:
            account = new_account(*_terms(budget), _now())
            for _ in range(TRIES):
                move = moves.begin(found, account, budget["version"], values)
                if changed := await self._users.changed(move):
                    return changed
                found = await self._users.find_one({"_id": id}, without=("claims",))
                if found is None:
                    return None
            raise contention()
        finally:
            await self._leave(budget, token)

    async def _join(self, budget_id: str | None, token: str) -> Document:
        """The budget, which stays until ``_leave``. That of users without one has no limit."""
        if budget_id is None:
            return {"_id": None, "limit_nano": None, "reset_every_s": None, "version": 0}
        entry = {"$set": {f"joining.{token}": _now()}, "$inc": {"joins": 1}}
        budget = await self._budgets.changed(({"_id": budget_id}, entry))
        if budget is None:
            raise StoreConflict("budget_id", "there is no such budget")
        return budget

    async def _leave(self, budget: Document, token: str) -> None:
        """The user has it. If its terms changed meanwhile, whoever changed them may have missed this user."""
        if budget["_id"] is None:
            return
        now = await self._budgets.changed(({"_id": budget["_id"]}, {"$unset": {f"joining.{token}": ""}}))
        if now and now["version"] != budget["version"]:
            await self._apply(now)

    async def _check_unused(self, budget: Document) -> None:
        if await self._users.find({"budget_id": budget["_id"], "deleted_at": None}, 1, only=("_id",)):
            raise StoreConflict("id", "a user has this budget")
        if any(since > _now() - _JOIN for since in budget["joining"].values()):
            raise StoreConflict("id", "a user is being given this budget")

    # --- the terms of a budget

    async def _change_terms(self, id: str, values: Document) -> Document | None:
        """Repeated, it goes on with the users where it was interrupted."""
        for _ in range(TRIES):
            budget = await self._budgets.find_one({"_id": id})
            if budget is None:
                return None
            is_new = any(values.get(name, budget[name]) != budget[name] for name in TERMS)
            condition = {"_id": id, "version": budget["version"]}
            update = {"$set": values, "$inc": {"version": int(is_new)}}
            if changed := await self._budgets.changed((condition, update)):
                await self._apply(changed)
                return changed
        raise contention()

    async def _apply(self, budget: Document) -> None:
        """Its terms to each user who does not have them yet: many at once where it is the same for them."""
        condition = {"budget_id": budget["_id"], "budget_version": {"$lt": budget["version"]}}
        only = ("_id", *moves.SEEN_BY_LIMIT)
        while behind := await self._users.find(condition, PAGE, only=only):
            if moves.limits_all_alike(behind[0], budget):
                await self._users.change_all(moves.limit_all(behind[0], budget, condition))
            else:
                await self._users.change_each([moves.limit(each, budget) for each in behind])


def _terms(budget: Mapping[str, Any]) -> tuple[int | None, int | None]:
    return budget["limit_nano"], budget["reset_every_s"]


def _now() -> datetime:
    return to_millisecond(datetime.now(UTC))
