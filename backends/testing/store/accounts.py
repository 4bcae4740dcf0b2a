"""What a change of a budget, or another budget, does to the accounts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ...store.contract import BudgetStrategy
from ...store.records import Budget, User
from .base import StoreCases, account_of, add_spender, budget_id, found
from .examples import make_budget, make_claim, make_user, settled


class AccountCases(StoreCases):
    async def test_an_account_is_not_changed_by_hand(self) -> None:
        async with self.opened() as store:
            before = await add_spender(store, 100)
            for name in ("spent_nano", "reserved_nano", "limit_nano", "reset_every_s", "period_ends_at"):
                with pytest.raises(ValueError, match=name):
                    await store.update(User, "user-1", {"alias": "x", name: None})

            assert await found(store, User, "user-1") == before

    async def test_a_changed_limit_counts_for_every_user_of_the_budget(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            user = await add_spender(store, 100)
            await store.add(make_user("user-2", budget_id=user.budget_id))
            await add_spender(store, 100, id="bystander")
            claim = make_claim(90)
            await store.reserve(claim)
            await store.settle([settled(claim)])
            changed = await store.update(Budget, budget_id(user), {"limit_nano": 95, "name": "less"})

            assert changed and (changed.limit_nano, changed.name) == (95, "less")
            assert (await found(store, User, "user-1")).limit_nano == 95
            assert (await found(store, User, "user-1")).spent_nano == 90
            assert await store.reserve(make_claim(6)) == "over_budget"
            assert await store.reserve(make_claim(96, "user-2")) == "over_budget"
            assert await store.reserve(make_claim(100, "bystander")) == "held"

    async def test_a_changed_period_begins_where_it_began_and_ends_where_the_budget_says(self) -> None:
        async with self.opened() as store:
            user = await add_spender(store, 100, reset_every_s=60)
            await store.update(Budget, budget_id(user), {"reset_every": "1h", "reset_every_s": 3600})
            longer = await found(store, User, "user-1")
            await store.update(Budget, budget_id(user), {"reset_every": None, "reset_every_s": None})
            endless = await found(store, User, "user-1")

        assert user.period_started_at
        assert longer.period_started_at == endless.period_started_at == user.period_started_at
        assert (longer.reset_every_s, endless.reset_every_s) == (3600, None)
        assert longer.period_ends_at == user.period_started_at + timedelta(hours=1)
        assert endless.period_ends_at is None

    async def test_another_budget_begins_a_new_account_and_keeps_what_is_held(self) -> None:
        spent, held = make_claim(30), make_claim(20)

        async with self.opened() as store:
            before = await add_spender(store, 100)
            await store.add(make_budget("other", 50, reset_every_s=60))
            for claim in (spent, held):
                await store.reserve(claim)
            await store.settle([settled(spent)])
            changed = await store.update(User, "user-1", {"budget_id": "other", "alias": "x"})

            assert changed == await found(store, User, "user-1")
            assert (changed.alias, changed.limit_nano, changed.reset_every_s) == ("x", 50, 60)
            assert await account_of(store) == (0, 20)
            assert before.period_started_at and changed.period_started_at and changed.period_ends_at
            assert changed.period_started_at >= before.period_started_at
            assert changed.period_ends_at - changed.period_started_at == timedelta(seconds=60)

    async def test_a_user_may_lose_the_budget(self) -> None:
        async with self.opened() as store:
            await add_spender(store, 0)
            changed = await store.update(User, "user-1", {"budget_id": None})

            assert changed and (changed.budget_id, changed.limit_nano) == (None, None)
            assert await store.reserve(make_claim(10)) == "held"
