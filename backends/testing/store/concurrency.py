"""Many at once, in one process and in several: never more than the limit, never twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from ...store.contract import BudgetStrategy, Claim, Store
from ...store.records import Budget, User
from ..cases.base import bounded
from .base import StoreCases, account_of, add_spender, budget_id, found
from .examples import make_claim, make_user, settled


class ConcurrencyCases(StoreCases):
    async def test_of_fifty_claims_at_once_ten_are_held_where_there_is_room_for_ten(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            verdicts = await asyncio.gather(*(store.reserve(make_claim(10)) for _ in range(50)))

            assert sorted(verdicts) == ["held"] * 10 + ["over_budget"] * 40
            assert await account_of(store) == (0, 100)

    async def test_two_stores_together_hold_no_more_than_one(self, strategy: BudgetStrategy) -> None:
        async with self._two(strategy) as stores:
            await add_spender(stores[0], 100)
            claims = [make_claim(10) for _ in range(50)]
            verdicts = await asyncio.gather(
                *(stores[number % 2].reserve(claim) for number, claim in enumerate(claims))
            )

            assert sorted(verdicts) == ["held"] * 10 + ["over_budget"] * 40
            assert await account_of(stores[1]) == (0, 100)

    async def test_the_same_claim_from_everywhere_at_once_is_held_once(
        self, strategy: BudgetStrategy
    ) -> None:
        claim = make_claim(10)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            verdicts = await asyncio.gather(*(store.reserve(claim) for _ in range(20)))

            assert verdicts == ["held"] * 20
            assert await account_of(store) == (0, 10)

    async def test_two_stores_settle_a_claim_once(self, strategy: BudgetStrategy) -> None:
        claims = [make_claim(3) for _ in range(10)]

        async with self._two(strategy) as stores:
            await add_spender(stores[0], 100)
            for claim in claims:
                await stores[0].reserve(claim)
            batch = [settled(claim, 4) for claim in claims]
            await asyncio.gather(*(store.settle(batch) for store in stores * 4))

            assert await account_of(stores[1]) == (40, 0)

    async def test_two_stores_sweep_and_settle_the_same_claims(self, strategy: BudgetStrategy) -> None:
        claims = [make_claim(3) for _ in range(20)]

        async with self._two(strategy) as stores:
            await add_spender(stores[0], 100)
            for claim in claims:
                await stores[0].reserve(claim)
            late = max(claim.expires_at for claim in claims)
            sweeps = [store.sweep(late) for store in stores]
            await asyncio.gather(*sweeps, *(stores[1].settle([settled(claim, 4)]) for claim in claims))

            assert await account_of(stores[1]) == (80, 0)

    async def test_spent_and_held_never_pass_the_limit_while_calls_come_and_go(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            await add_spender(store, 200)
            callers = [asyncio.ensure_future(_call(store, amount)) for amount in (7, 11, 13) * 10]
            while not all(caller.done() for caller in callers):
                spent, reserved = await account_of(store)
                assert spent + reserved <= 200
                await asyncio.sleep(0)
            spent = sum(claim.amount_nano for caller in callers if (claim := caller.result()))

            assert await account_of(store) == (spent, 0)
            assert spent > 200 - 13

    async def test_users_do_not_stand_in_each_others_way(self, strategy: BudgetStrategy) -> None:
        ids = [f"user {number}" for number in range(8)]

        async with self.opened(strategy) as store:
            for id in ids:
                await add_spender(store, 30, id=id)
            claims = [make_claim(10, id) for id in ids * 4]
            verdicts = await asyncio.gather(*(store.reserve(claim) for claim in claims))

            assert sorted(verdicts) == ["held"] * 24 + ["over_budget"] * 8
            for id in ids:
                assert await account_of(store, id) == (0, 30)

    async def test_changes_of_a_user_disturb_no_money(self, strategy: BudgetStrategy) -> None:
        async with self.opened(strategy) as store:
            user = await add_spender(store, 1000)
            changes = [store.update(User, "user-1", {"alias": str(number)}) for number in range(15)]
            limits = [store.update(Budget, budget_id(user), {"limit_nano": 1000 + n}) for n in range(5)]
            callers = [_call(store, 10) for _ in range(20)]
            await asyncio.gather(*(bounded(each) for each in (*changes, *limits, *callers)))

            assert await account_of(store) == (200, 0)
            kept = await found(store, User, "user-1")
            assert kept.limit_nano == (await found(store, Budget, budget_id(user))).limit_nano

    async def test_a_user_added_while_the_budget_changes_has_its_limit(self) -> None:
        async with self.opened() as store:
            user = await add_spender(store, 10)
            ids = [f"new {number}" for number in range(10)]
            added = [store.add(make_user(id, budget_id=user.budget_id)) for id in ids]
            changed = [store.update(Budget, budget_id(user), {"limit_nano": 10 + n}) for n in range(10)]
            mixed = [each for pair in zip(added, changed, strict=True) for each in pair]
            await asyncio.gather(*(bounded(each) for each in mixed))
            budget = await found(store, Budget, budget_id(user))

            assert {each.limit_nano for each in await store.list(User)} == {budget.limit_nano}

    @asynccontextmanager
    async def _two(self, strategy: BudgetStrategy) -> AsyncIterator[list[Store]]:
        self.need_shared()
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(self.opened(strategy))
            yield [first, await stack.enter_async_context(self.another(strategy))]


async def _call(store: Store, amount_nano: int) -> Claim | None:
    """A call that costs what was held for it; None if it was refused."""
    claim = make_claim(amount_nano)
    if await store.reserve(claim) != "held":
        return None
    await store.settle([settled(claim)])
    return claim
