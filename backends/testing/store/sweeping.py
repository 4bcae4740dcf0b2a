"""Claims that nobody settles in time are let go, and remembered for a day."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from ...store.contract import SWEPT_KEPT_S, BudgetStrategy
from ..cases.base import bounded
from .base import StoreCases, account_of, add_spender
from .examples import make_claim, now, settled

MILLISECOND = timedelta(milliseconds=1)
KEPT = timedelta(seconds=SWEPT_KEPT_S)


class SweepingCases(StoreCases):
    async def test_what_expired_is_let_go_once_and_counted(self, strategy: BudgetStrategy) -> None:
        soon = now() + timedelta(minutes=10)
        claims = [make_claim(10, expires_at=soon + timedelta(seconds=number)) for number in range(4)]

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            for claim in claims:
                await store.reserve(claim)

            assert await store.sweep(claims[0].expires_at - MILLISECOND) == 0
            assert await store.sweep(claims[1].expires_at) == 2
            assert await account_of(store) == (0, 20)
            assert await store.sweep(claims[1].expires_at) == 0
            assert await store.sweep(claims[3].expires_at) == 2
            assert await account_of(store) == (0, 0)

    async def test_many_sweep_at_once_and_each_claim_is_let_go_once(self, strategy: BudgetStrategy) -> None:
        claims = [make_claim(1, f"user {number % 3}") for number in range(30)]
        later = now() + timedelta(days=1)

        async with self.opened(strategy) as store:
            for number in range(3):
                await add_spender(store, 100, id=f"user {number}")
            for claim in claims:
                await store.reserve(claim)
            counts = await asyncio.gather(*(bounded(store.sweep(later)) for _ in range(5)))

            assert sum(counts) == 30
            for number in range(3):
                assert await account_of(store, f"user {number}") == (0, 0)

    async def test_a_settlement_after_the_sweep_is_charged_once(self, strategy: BudgetStrategy) -> None:
        claim, other = make_claim(30), make_claim(5, expires_at=now() + timedelta(days=2))

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(claim)
            await store.reserve(other)
            await store.sweep(claim.expires_at)
            for _ in range(2):
                await store.settle([settled(claim, 25)])

            assert await account_of(store) == (25, 5)

    async def test_a_settlement_after_a_claim_made_room_is_charged_once(
        self, strategy: BudgetStrategy
    ) -> None:
        first = make_claim(100)
        second = make_claim(100, made_at=first.expires_at)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(first)
            assert await store.reserve(second) == "held"
            await store.settle([settled(first, 25), settled(first, 25)])

            assert await account_of(store) == (25, 100)

    async def test_a_swept_claim_that_is_asked_for_again_is_not_held_twice(
        self, strategy: BudgetStrategy
    ) -> None:
        claim = make_claim(30)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(claim)
            await store.sweep(claim.expires_at)
            await store.reserve(claim)
            await store.settle([settled(claim, 25)] * 2)

            assert await account_of(store) == (25, 0)

    async def test_a_claim_that_expired_is_remembered_for_a_day(self, strategy: BudgetStrategy) -> None:
        claim = make_claim(30)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(claim)
            await store.sweep(claim.expires_at)
            await store.sweep(claim.expires_at + KEPT - MILLISECOND)
            await store.settle([settled(claim, 25)])

            assert await account_of(store) == (25, 0)

    async def test_a_claim_that_is_forgotten_changes_nothing(self, strategy: BudgetStrategy) -> None:
        claim = make_claim(30)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.reserve(claim)
            await store.sweep(claim.expires_at)
            await store.sweep(claim.expires_at + KEPT)
            await store.settle([settled(claim, 25)])

            assert await account_of(store) == (0, 0)

    async def test_nobody_swept_for_days_and_all_is_let_go(self, strategy: BudgetStrategy) -> None:
        claims = [make_claim(10) for _ in range(3)]
        later = now() + timedelta(days=9)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            for claim in claims:
                await store.reserve(claim)

            assert await store.sweep(later) == 3
            assert await store.sweep(later) == 0
            assert await account_of(store) == (0, 0)
