"""A cancelled call may have been done or not; the store is as good as before, and all can be asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...store.contract import BudgetStrategy, Store
from ...store.records import ApiKey, Budget, User
from ..cases.base import bounded
from ..cases.base import settled as ended
from .base import StoreCases, account_of, add_spender, budget_id, found
from .examples import hash_of, make_api_key, make_claim, now, settled

STEPS = 10
"""Rounds of the event loop after which a call is cancelled; one run for each."""


class CancellationCases(StoreCases):
    async def test_a_claim_that_is_cancelled_anywhere_is_held_once_when_asked_again(
        self, strategy: BudgetStrategy
    ) -> None:
        claims = [make_claim(3) for _ in range(STEPS)]

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            for step, claim in enumerate(claims):
                await _cancel_after(store.reserve(claim), step)
                assert await store.reserve(claim) == "held"

            assert await account_of(store) == (0, 3 * STEPS)

    async def test_a_settlement_that_is_cancelled_anywhere_counts_once_when_asked_again(
        self, strategy: BudgetStrategy
    ) -> None:
        claims = [make_claim(3) for _ in range(STEPS)]

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            for step, claim in enumerate(claims):
                await store.reserve(claim)
                await _cancel_after(store.settle([settled(claim, 2)]), step)
                await store.settle([settled(claim, 2)])

            assert await account_of(store) == (2 * STEPS, 0)

    async def test_a_claim_that_is_cancelled_anywhere_can_be_let_go(self, strategy: BudgetStrategy) -> None:
        claims = [make_claim(3) for _ in range(STEPS)]

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            for step, claim in enumerate(claims):
                await _cancel_after(store.reserve(claim), step)
            for claim in claims:  # only then does the store know each, or never will
                await store.reserve(claim)
            await store.settle([settled(claim, 0) for claim in claims])

            assert await account_of(store) == (0, 0)

    async def test_a_cancelled_sweep_lets_go_once(self, strategy: BudgetStrategy) -> None:
        claims = [make_claim(3) for _ in range(STEPS)]

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            for step, claim in enumerate(claims):
                await store.reserve(claim)
                await _cancel_after(store.sweep(claim.expires_at), step)
            await store.sweep(claims[-1].expires_at)

            assert await account_of(store) == (0, 0)

    async def test_any_other_call_that_is_cancelled_anywhere_leaves_the_store_usable(self) -> None:
        key = make_api_key()

        async with self.opened() as store:
            user = await add_spender(store, 100)
            await store.add(key)
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: store.ping(),
                lambda: store.migrate(),
                lambda: store.add(make_api_key()),
                lambda: store.get(User, user.id),
                lambda: store.list(ApiKey),
                lambda: store.update(User, user.id, {"alias": "new"}),
                lambda: store.update(Budget, budget_id(user), {"limit_nano": 100}),
                lambda: store.remove(Budget, "nowhere"),
                lambda: store.find_key(key.secret_hash),
                lambda: store.touch_keys({key.id: now()}),
                lambda: store.keep_master_key(hash_of("master")),
                lambda: store.rebuild_spent(user, 0),
            ]
            for call in calls:
                for step in range(STEPS // 2):
                    await _cancel_after(call(), step)
                await bounded(call())
            await self._check_usable(store)

    async def test_many_calls_that_are_cancelled_at_once_leave_the_store_usable(
        self, strategy: BudgetStrategy
    ) -> None:
        claims = [make_claim(1) for _ in range(30)]

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            calls = [asyncio.ensure_future(store.reserve(claim)) for claim in claims]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            await asyncio.wait(calls)
            for claim in claims:
                assert await store.reserve(claim) == "held"

            assert await account_of(store) == (0, 30)
            await self._check_usable(store)

    async def _check_usable(self, store: Store) -> None:
        await bounded(store.ping())
        user = await found(store, User, "user-1")
        assert await store.update(User, user.id, {"alias": "usable"}) is not None
        assert store.pool()["in_use"] == 0


async def _cancel_after(call: Awaitable[Any], rounds: int) -> None:
    task = asyncio.ensure_future(call)
    for _ in range(rounds):
        await asyncio.sleep(0)
    task.cancel()
    await ended(task)
    if not task.cancelled():  # it ended before; then with an answer
        task.result()
