"""Money is held before it is spent, and only where there is room for it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ...store.contract import BudgetStrategy
from ...store.records import MAX_NANO_USD, User
from .base import StoreCases, account_of, add_spender
from .examples import CREATED_AT, make_claim, make_user, settled


class ReservingCases(StoreCases):
    async def test_what_fits_is_held_and_what_does_not_is_refused(self, strategy: BudgetStrategy) -> None:
        async with self.opened(strategy) as store:
            await add_spender(store, 100)

            assert await store.reserve(make_claim(101)) == "over_budget"
            assert await store.reserve(make_claim(60)) == "held"
            assert await store.reserve(make_claim(41)) == "over_budget"
            assert await store.reserve(make_claim(40)) == "held"
            assert await account_of(store) == (0, 100)

    async def test_what_was_spent_takes_room(self, strategy: BudgetStrategy) -> None:
        claim = make_claim(60)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(claim)
            await store.settle([settled(claim, 70)])

            assert await store.reserve(make_claim(31)) == "over_budget"
            assert await store.reserve(make_claim(30)) == "held"
            assert await account_of(store) == (70, 30)

    @pytest.mark.parametrize("spent_nano", [100, 101, 5000])
    async def test_an_account_at_its_limit_takes_no_call_not_even_a_free_one(
        self, strategy: BudgetStrategy, spent_nano: int
    ) -> None:
        claim = make_claim(50)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(claim)
            await store.settle([settled(claim, spent_nano)])

            assert await store.reserve(make_claim(0)) == "over_budget"
            assert await store.reserve(make_claim(1)) == "over_budget"

    async def test_a_free_call_is_held_where_there_is_room(self, strategy: BudgetStrategy) -> None:
        claim = make_claim(0)

        async with self.opened(strategy) as store:
            await add_spender(store, 1)

            assert await store.reserve(claim) == "held"
            await store.settle([settled(claim, 3), settled(claim, 3)])
            assert await account_of(store) == (3, 0)

    async def test_a_budget_of_nothing_takes_nothing(self, strategy: BudgetStrategy) -> None:
        async with self.opened(strategy) as store:
            await add_spender(store, 0)

            assert await store.reserve(make_claim(0)) == "over_budget"

    async def test_the_same_claim_is_held_once(self, strategy: BudgetStrategy) -> None:
        claim = make_claim(60)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)

            assert [await store.reserve(claim) for _ in range(3)] == ["held"] * 3
            assert await account_of(store) == (0, 60)

    async def test_a_refused_claim_holds_nothing(self, strategy: BudgetStrategy) -> None:
        claim = make_claim(101)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(claim)
            await store.settle([settled(claim)])

            assert await account_of(store) == (0, 0)

    async def test_users_of_one_budget_have_an_account_each(self, strategy: BudgetStrategy) -> None:
        async with self.opened(strategy) as store:
            user = await add_spender(store, 100)
            await store.add(make_user("user-2", budget_id=user.budget_id))

            assert await store.reserve(make_claim(100)) == "held"
            assert await store.reserve(make_claim(100, "user-2")) == "held"
            assert await store.reserve(make_claim(1, "user-2")) == "over_budget"

    async def test_who_has_no_budget_has_no_limit(self, strategy: BudgetStrategy) -> None:
        async with self.opened(strategy) as store:
            await store.add(make_user())

            assert await store.reserve(make_claim(MAX_NANO_USD)) == "held"
            assert await store.reserve(make_claim(MAX_NANO_USD)) == "held"
            assert await account_of(store) == (0, 2 * MAX_NANO_USD)

    async def test_nobody_is_held_money_for(self, strategy: BudgetStrategy) -> None:
        async with self.opened(strategy) as store:
            await store.add(make_user("gone", deleted_at=CREATED_AT))
            await store.add(make_user("gone and blocked", deleted_at=CREATED_AT, blocked=True))

            assert await store.reserve(make_claim(1, "nobody")) == "user_missing"
            assert await store.reserve(make_claim(1, "gone")) == "user_missing"
            assert await store.reserve(make_claim(1, "gone and blocked")) == "user_missing"
            assert await account_of(store, "gone") == (0, 0)

    async def test_who_is_blocked_is_told_so_whatever_there_is_to_spend(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await add_spender(store, 0, id="poor")
            for id in ("user-1", "poor"):
                await store.update(User, id, {"blocked": True})

            assert await store.reserve(make_claim(1)) == "user_blocked"
            assert await store.reserve(make_claim(1, "poor")) == "user_blocked"
            assert await account_of(store) == (0, 0)
            await store.update(User, "user-1", {"blocked": False})
            assert await store.reserve(make_claim(1)) == "held"

    async def test_what_has_expired_makes_room_before_anybody_is_refused(
        self, strategy: BudgetStrategy
    ) -> None:
        first, second = make_claim(50), make_claim(50)
        early = make_claim(50, made_at=first.expires_at - timedelta(milliseconds=1))
        late = make_claim(100, made_at=max(first.expires_at, second.expires_at))

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await add_spender(store, 100, id="bystander")
            await store.reserve(first)
            await store.reserve(second)
            await store.reserve(make_claim(70, "bystander", made_at=late.made_at))

            assert await store.reserve(early) == "over_budget"
            assert await store.reserve(late) == "held"
            assert await account_of(store) == (0, 100)
            assert await account_of(store, "bystander") == (0, 70)
            assert await store.sweep(late.made_at) == 0

    async def test_what_has_expired_makes_room_though_it_is_not_enough(
        self, strategy: BudgetStrategy
    ) -> None:
        expired = make_claim(50)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(expired)

            assert await store.reserve(make_claim(101, made_at=expired.expires_at)) == "over_budget"
            assert await store.reserve(make_claim(100, made_at=expired.expires_at)) == "held"

    async def test_the_largest_amounts_fit(self, strategy: BudgetStrategy) -> None:
        claims = [make_claim(MAX_NANO_USD) for _ in range(4)]

        async with self.opened(strategy) as store:
            await add_spender(store, MAX_NANO_USD)
            assert await store.reserve(claims[0]) == "held"
            assert await store.reserve(claims[1]) == "over_budget"
            await store.settle([settled(claims[0], MAX_NANO_USD)])

            assert await store.reserve(claims[2]) == "over_budget"
            assert await account_of(store) == (MAX_NANO_USD, 0)
