"""Budgets that begin anew: nobody has to look for a period to end."""

from __future__ import annotations

from datetime import datetime, timedelta

from ...store.contract import BudgetStrategy, Store
from ...store.records import User
from .base import StoreCases, account_of, add_spender, found
from .examples import make_claim, settled

MINUTE = timedelta(minutes=1)
MILLISECOND = timedelta(milliseconds=1)


class PeriodCases(StoreCases):
    async def test_a_period_that_is_over_makes_room(self, strategy: BudgetStrategy) -> None:
        async with self.opened(strategy) as store:
            end = await _spent_all(store)

            assert await store.reserve(make_claim(1, made_at=end - MILLISECOND)) == "over_budget"
            assert await store.reserve(make_claim(100, made_at=end)) == "held"
            await _check_period(store, end)
            assert await account_of(store) == (0, 100)

    async def test_a_period_ends_also_where_there_was_room(self, strategy: BudgetStrategy) -> None:
        async with self.opened(strategy) as store:
            end = await _spent_all(store, limit_nano=1000)

            assert await store.reserve(make_claim(1, made_at=end + MILLISECOND)) == "held"
            await _check_period(store, end)
            assert await account_of(store) == (0, 1)

    async def test_periods_follow_each_other_however_long_nobody_looked(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            end = await _spent_all(store)
            later = end + 1000 * MINUTE + timedelta(seconds=59, milliseconds=999)

            assert await store.reserve(make_claim(100, made_at=later)) == "held"
            await _check_period(store, end + 1000 * MINUTE)

    async def test_a_call_at_the_very_end_of_a_skipped_period_begins_the_next(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            end = await _spent_all(store)

            assert await store.reserve(make_claim(100, made_at=end + 3 * MINUTE)) == "held"
            await _check_period(store, end + 3 * MINUTE)

    async def test_what_is_held_stays_held_into_the_next_period(self, strategy: BudgetStrategy) -> None:
        async with self.opened(strategy) as store:
            user = await add_spender(store, 100, reset_every_s=60)
            assert user.period_started_at and user.period_ends_at
            held = make_claim(60, made_at=user.period_started_at)
            await store.reserve(held)

            assert await store.reserve(make_claim(41, made_at=user.period_ends_at)) == "over_budget"
            assert await store.reserve(make_claim(40, made_at=user.period_ends_at)) == "held"
            assert await account_of(store) == (0, 100)

    async def test_a_new_period_that_is_held_already_takes_no_call_not_even_a_free_one(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            user = await add_spender(store, 100, reset_every_s=60)
            assert user.period_started_at and user.period_ends_at
            await store.reserve(make_claim(100, made_at=user.period_started_at))

            assert await store.reserve(make_claim(0, made_at=user.period_ends_at)) == "over_budget"

    async def test_a_call_of_an_earlier_period_is_let_go_and_not_charged(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            user = await add_spender(store, 100, reset_every_s=60)
            assert user.period_started_at and user.period_ends_at
            old = make_claim(60, made_at=user.period_ends_at - MILLISECOND)
            new = make_claim(10, made_at=user.period_ends_at)
            await store.reserve(old)
            await store.reserve(new)
            await store.settle([settled(old), settled(new)])

            assert await account_of(store) == (10, 0)

    async def test_a_call_that_comes_late_to_its_period_does_not_turn_it_back(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            end = await _spent_all(store)
            await store.reserve(make_claim(20, made_at=end))
            late = make_claim(30, made_at=end - MILLISECOND)

            assert await store.reserve(late) == "held"
            await _check_period(store, end)
            await store.settle([settled(late)])
            assert await account_of(store) == (0, 20)

    async def test_a_budget_without_an_end_is_spent_for_good(self, strategy: BudgetStrategy) -> None:
        claim = make_claim(100)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(claim)
            await store.settle([settled(claim)])
            later = claim.made_at + timedelta(days=4000)

            assert await store.reserve(make_claim(1, made_at=later)) == "over_budget"
            assert await account_of(store) == (100, 0)

    async def test_a_settlement_before_anybody_looked_belongs_to_the_old_period(
        self, strategy: BudgetStrategy
    ) -> None:
        async with self.opened(strategy) as store:
            user = await add_spender(store, 100, reset_every_s=60)
            assert user.period_started_at and user.period_ends_at
            claim = make_claim(60, made_at=user.period_started_at)
            await store.reserve(claim)
            await store.settle([settled(claim, 90)])
            assert await account_of(store) == (90, 0)

            assert await store.reserve(make_claim(100, made_at=user.period_ends_at)) == "held"
            assert await account_of(store) == (0, 100)


async def _spent_all(store: Store, limit_nano: int = 100) -> datetime:
    """A user who spent a hundred in a period of a minute; when it ends."""
    user = await add_spender(store, limit_nano, reset_every_s=60)
    assert user.period_started_at and user.period_ends_at
    claim = make_claim(100, made_at=user.period_started_at)
    await store.reserve(claim)
    await store.settle([settled(claim)])
    assert await account_of(store) == (100, 0)
    return user.period_ends_at


async def _check_period(store: Store, started_at: datetime) -> None:
    user = await found(store, User, "user-1")
    assert (user.period_started_at, user.period_ends_at) == (started_at, started_at + MINUTE)
