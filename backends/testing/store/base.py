"""What an author tells the suite about a store, and what every case uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar, TypeVar, cast
from uuid import UUID

import pytest

from ...store.contract import BudgetStrategy, Claim, Settlement, Store, Verdict
from ...store.records import Record, User
from ..cases.base import bounded
from .examples import CREATED_AT, make_budget, make_user

R = TypeVar("R", bound=Record)


class StoreCases:
    """The hooks. ``open_store`` has to be given, ``reopen`` wherever the data outlives the store."""

    strategies: ClassVar[tuple[BudgetStrategy, ...]] = ("for_update", "cas")
    """Those that the store offers. The cases about money run once for each."""

    is_shared: ClassVar[bool] = True
    """Whether several stores can have one database, one after the other and at the same time."""

    def open_store(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
        """A store on a database that belongs to this test and is empty."""
        raise NotImplementedError

    def reopen(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
        """One more store on the database of ``open_store``."""
        raise NotImplementedError

    # --- for the cases

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "strategy" in metafunc.fixturenames:
            metafunc.parametrize("strategy", self.strategies)

    @asynccontextmanager
    async def opened(self, strategy: BudgetStrategy | None = None) -> AsyncIterator[Store]:
        """The empty store; the money is counted at the end."""
        self._held = Held()
        async with self.open_store(strategy or self.strategies[0]) as store:
            yield cast("Store", WatchedStore(store, self._held))
            await self._held.check(store)

    @asynccontextmanager
    async def another(self, strategy: BudgetStrategy | None = None) -> AsyncIterator[Store]:
        """One more store on the same data."""
        async with self.reopen(strategy or self.strategies[-1]) as store:
            yield cast("Store", WatchedStore(store, self._held))

    def need_shared(self) -> None:
        """Go on only where data outlives a store; else the report lists the case as not offered."""
        if not self.is_shared:
            pytest.skip(f"not offered: the data of {type(self).__name__} is gone with the store")


class Held:
    """Which claims hold money, as far as the case knows."""

    def __init__(self) -> None:
        self.claims: dict[UUID, Claim] = {}
        self.latest = CREATED_AT
        """The last moment that the store was told."""

    def see(self, moment: datetime) -> None:
        self.latest = max(self.latest, moment)

    async def check(self, store: Store) -> None:
        """Compare with the accounts, when nothing that expired is left."""
        await bounded(store.sweep(self.latest))
        users = await bounded(store.list(User, limit=1000))
        assert {user.id: user.reserved_nano for user in users} == {
            user.id: sum(
                claim.amount_nano
                for claim in self.claims.values()
                if claim.user_id == user.id and claim.expires_at > self.latest
            )
            for user in users
        }


class WatchedStore:
    """A store, and what it was told about claims."""

    def __init__(self, store: Store, held: Held) -> None:
        self._store = store
        self._held = held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def reserve(self, claim: Claim) -> Verdict:
        self._held.see(claim.made_at)
        verdict = await self._store.reserve(claim)
        if verdict == "held":
            self._held.claims[claim.id] = claim
        return verdict

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await self._store.settle(settlements)
        for each in settlements:
            self._held.claims.pop(each.claim.id, None)

    async def sweep(self, now: datetime) -> int:
        self._held.see(now)
        return await self._store.sweep(now)


async def add_spender(
    store: Store, limit_nano: int = 100, reset_every_s: int | None = None, id: str = "user-1"
) -> User:
    """A user with a budget of their own; as the store keeps it."""
    budget = make_budget(f"budget of {id}", limit_nano, reset_every_s=reset_every_s)
    await store.add(budget)
    await store.add(make_user(id, budget_id=budget.id))
    return await found(store, User, id)


async def found(store: Store, kind: type[R], id: str) -> R:
    """The record, which has to be there."""
    record = await bounded(store.get(kind, id))
    assert record is not None, f"{kind.__name__} {id!r} is gone"
    return record


async def account_of(store: Store, id: str = "user-1") -> tuple[int, int]:
    """What the user spent and has in reserve."""
    user = await found(store, User, id)
    return user.spent_nano, user.reserved_nano


def budget_id(user: User) -> str:
    """The id of the user's budget, which has to have one."""
    assert user.budget_id is not None
    return user.budget_id
