"""Holds and settlements in any order, with a store that comes and goes: the budget is kept and the sum is
right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from backends import Budget, Claim, Settlement, StoreUnavailable, User, Verdict, usd
from backends.store.memory import MemoryStore
from gateway.money import settlements as module
from gateway.money.budgets import Hold, Order, ReservingBudgets
from gateway.money.settlements import Settlements
from gateway.pricing import Price

LIMIT_NANO = 1000
PRICE = Price(Decimal(0), Decimal("0.001"))
"""A nano-dollar for a token of output."""
LONG_S = 20.0
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 600)),
        st.tuples(st.sampled_from(["end", "end_twice"]), st.integers(0, 20), st.integers(0, 100)),
        st.tuples(st.just("never_begin"), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.integers(1, 5)),
        st.tuples(st.just("feel"), st.sampled_from(["up", "down", "deaf"])),
    ),
    max_size=40,
)


class Moody(MemoryStore):
    """``up``; ``down``: it does nothing; ``deaf``: it does what it is asked for and its answer is lost."""

    mood = "up"

    async def reserve(self, claim: Claim) -> Verdict:
        async with self._answering() as does_it:
            return await super().reserve(claim) if does_it else "held"

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        async with self._answering() as does_it:
            if does_it:
                await super().settle(settlements)

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[bool]:
        mood = self.mood
        yield mood != "down"
        await asyncio.sleep(0)
        if mood != "up":
            raise StoreUnavailable(mood)

    async def user(self) -> User:
        user = await self.get(User, "u")
        assert user is not None
        return user


class Play:
    """Budgets and settlements over a moody store; each step is a method."""

    def __init__(self) -> None:
        self.store = Moody()
        self.settlements = Settlements(self.store, 900, Random(0))
        self.budgets = ReservingBudgets(self.store, self.settlements, ttl_s=900, default_output_tokens=0)
        self.running: list[tuple[Hold, int]] = []
        self.costs_nano = 0

    async def begin(self) -> None:
        now = datetime.now(UTC)
        await self.store.add(Budget(id="b", limit_nano=LIMIT_NANO, created_at=now))
        await self.store.add(User(id="u", budget_id="b", created_at=now))
        self.settlements.start()

    async def call(self, tokens: int) -> None:
        order = Order(
            row_id=uuid7(),
            made_at=datetime.now(UTC),
            spender=await self.store.user(),
            price=PRICE,
            prompt_tokens=0,
            output_tokens=tokens,
        )
        with suppress(StoreUnavailable):
            hold = await self.budgets.hold(order)
            if hold.refusal is None:
                self.running.append((hold, tokens))

    async def end(self, which: int, share: int) -> None:
        if self.running:
            self._settle(*self.running.pop(which % len(self.running)), share)

    async def end_twice(self, which: int, share: int) -> None:
        if self.running:
            hold, tokens = self.running.pop(which % len(self.running))
            self._settle(hold, tokens, share)
            hold.settle(Decimal(1))

    async def never_begin(self, which: int) -> None:
        if self.running:
            self.running.pop(which % len(self.running))[0].settle(None)

    async def wait(self, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    async def feel(self, mood: str) -> None:
        self.store.mood = mood

    def _settle(self, hold: Hold, tokens: int, share: int) -> None:
        cost_nano = tokens * share // 100
        hold.settle(usd(cost_nano))
        self.costs_nano += cost_nano

    async def finish(self) -> None:
        self.store.mood = "up"
        for hold, _ in self.running:
            hold.settle(None)
        async with asyncio.timeout(LONG_S):
            await self.settlements.settled()
            await self.settlements.stop(LONG_S)


@settings(max_examples=200, deadline=None)
@given(STEPS)
async def test_spent_and_held_never_pass_the_limit_and_the_end_is_the_sum_of_the_costs(
    steps: list[tuple[Any, ...]],
) -> None:
    with patch.object(module, "BASE_S", 0.0):
        play = Play()
        await play.begin()
        for step, *facts in steps:
            await getattr(play, step)(*facts)
            user = await play.store.user()
            assert user.spent_nano + user.reserved_nano <= LIMIT_NANO
        await play.finish()

    user = await play.store.user()
    assert (user.spent_nano, user.reserved_nano) == (play.costs_nano, 0)
