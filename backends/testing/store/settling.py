"""What was held is let go and charged, each claim once, however often and whenever it is asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ...store.contract import BudgetStrategy
from ...store.records import MAX_NANO_USD, User
from ..cases.base import bounded
from .base import StoreCases, account_of, add_spender, found
from .examples import make_budget, make_claim, make_user, settled


class SettlingCases(StoreCases):
    async def test_a_settled_claim_is_let_go_and_its_cost_is_spent(self, strategy: BudgetStrategy) -> None:
        cheap, dear, free = (make_claim(30) for _ in range(3))

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            for claim in (cheap, dear, free):
                await store.reserve(claim)

            await store.settle([settled(cheap, 1)])
            assert await account_of(store) == (1, 60)
            await store.settle([settled(dear, 500), settled(free, 0)])
            assert await account_of(store) == (501, 0)

    async def test_a_settlement_that_is_repeated_counts_once(self, strategy: BudgetStrategy) -> None:
        claim, other = make_claim(30), make_claim(20)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(claim)
            await store.reserve(other)
            await store.settle([settled(claim, 40), settled(claim, 40)])
            for _ in range(3):
                await store.settle([settled(claim, 40)])

            assert await account_of(store) == (40, 20)

    async def test_settlements_of_many_users_come_in_one_batch(self, strategy: BudgetStrategy) -> None:
        ids = [f"user {number}" for number in range(4)]
        claims = [make_claim(5 + number, ids[number % 4]) for number in range(40)]

        async with self.opened(strategy) as store:
            for id in ids:
                await add_spender(store, 10_000, id=id)
            for claim in claims:
                assert await store.reserve(claim) == "held"
            await store.settle([settled(claim, claim.amount_nano * 2) for claim in claims[:20]])
            await store.settle([settled(claim, claim.amount_nano * 2) for claim in claims])
            await store.settle([])

            for id in ids:
                spent = 2 * sum(claim.amount_nano for claim in claims if claim.user_id == id)
                assert await account_of(store, id) == (spent, 0)

    async def test_a_claim_that_is_not_known_changes_nothing(self, strategy: BudgetStrategy) -> None:
        held = make_claim(30)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(held)
            await store.settle(
                [settled(make_claim(30), 30), settled(make_claim(30, "nobody"), 30), settled(held, 7)]
            )

            assert await account_of(store) == (7, 0)

    async def test_the_same_settlement_from_everywhere_at_once_counts_once(
        self, strategy: BudgetStrategy
    ) -> None:
        claims = [make_claim(3) for _ in range(10)]

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            for claim in claims:
                await store.reserve(claim)
            batch = [settled(claim, 4) for claim in claims]
            await asyncio.gather(*(bounded(store.settle(each)) for each in [batch, batch[::-1]] * 5))
            await store.settle(batch)

            assert await account_of(store) == (40, 0)

    async def test_a_settlement_counts_for_who_is_blocked_or_deleted_meanwhile(
        self, strategy: BudgetStrategy
    ) -> None:
        claim = make_claim(30)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(claim)
            await store.update(User, "user-1", {"blocked": True, "deleted_at": claim.made_at})
            await store.settle([settled(claim, 25)])

            assert await account_of(store) == (25, 0)

    async def test_a_claim_of_before_the_new_budget_is_let_go_and_not_charged(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            user = await add_spender(store, 100)
            assert user.period_started_at
            claim = make_claim(30, made_at=user.period_started_at.replace(year=2025))
            claim = replace(claim, expires_at=make_claim().expires_at)
            await store.reserve(claim)
            await store.add(make_budget("other", 50))
            await store.update(User, "user-1", {"budget_id": "other"})
            await store.settle([settled(claim, 30)])

            assert await account_of(store) == (0, 0)

    async def test_sums_beyond_the_largest_amount_are_exact(self, strategy: BudgetStrategy) -> None:
        claims = [make_claim(MAX_NANO_USD) for _ in range(9)]

        async with self.opened(strategy) as store:
            await store.add(make_user())
            for claim in claims:
                assert await store.reserve(claim) == "held"
            assert await store.reserve(make_claim(MAX_NANO_USD)) == "over_budget"
            assert await account_of(store) == (0, 9 * MAX_NANO_USD)
            await store.settle([settled(claim, MAX_NANO_USD) for claim in claims])

            assert await account_of(store) == (9 * MAX_NANO_USD, 0)

    async def test_no_settlement_is_stuck_however_much_was_spent(self, strategy: BudgetStrategy) -> None:
        claims = [make_claim(0) for _ in range(12)]

        async with self.opened(strategy) as store:
            await store.add(make_user())
            for claim in claims:
                await store.reserve(claim)
            await store.settle([settled(claim, MAX_NANO_USD) for claim in claims[:6]])
            await store.settle([settled(claim, MAX_NANO_USD) for claim in claims])
            spent, reserved = await account_of(store)

        assert (spent >= 9 * MAX_NANO_USD, reserved) == (True, 0)

    async def test_what_was_spent_is_set_while_nothing_is_held(self) -> None:
        async with self.opened() as store:
            user = await add_spender(store, 100, reset_every_s=60)
            assert await store.rebuild_spent(user, 77) is True
            rebuilt = await found(store, User, "user-1")

            assert rebuilt == replace(user, spent_nano=77)
            assert await store.rebuild_spent(rebuilt, 0) is True
            assert await account_of(store) == (0, 0)

    async def test_what_was_spent_is_not_set_over_what_happened_meanwhile(self) -> None:
        claim = make_claim(10)

        async with self.opened() as store:
            before = await add_spender(store, 100)
            await store.reserve(claim)
            held = await found(store, User, "user-1")
            answers = [await store.rebuild_spent(user, 77) for user in (before, held)]
            await store.settle([settled(claim)])
            answers += [await store.rebuild_spent(user, 77) for user in (before, held)]

            assert answers == [False] * 4
            assert await account_of(store) == (10, 0)

    async def test_the_account_of_who_is_not_there_is_not_set(self) -> None:
        async with self.opened() as store:
            assert await store.rebuild_spent(make_user("nobody"), 5) is False
