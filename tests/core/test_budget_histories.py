"""Any history of calls that come, end, never end and come late, from two stores at once, against plain sums.

The model keeps the calls and adds them up. It knows nothing of accounts: what was spent is the cost of the
calls of the period, what is held are the amounts of those that neither ended nor expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends import Claim, Settlement, Store, StoreOptions, User, load_store
from backends.store.contract import BudgetStrategy
from backends.testing import make_budget, make_claim, make_user

LIMIT = 100


@dataclass(frozen=True)
class Begin:
    """A call that holds ``amount`` for ``ttl_s`` and will cost ``cost``, asked for through both stores."""

    amount: int
    cost: int
    ttl_s: int


@dataclass(frozen=True)
class End:
    """The end of one of the calls before, perhaps not for the first time."""

    pick: int


@dataclass(frozen=True)
class Sweep:
    pass


Step = Begin | End | Sweep


@dataclass(frozen=True)
class Moment:
    """What happens at the same time, ``after_s`` seconds after the moment before."""

    after_s: int
    steps: tuple[Step, ...]


@dataclass
class Call:
    claim: Claim
    cost: int
    is_settled: bool = False
    was_surely_held: bool = False
    """When it was settled it had not expired."""

    @property
    def overshoot(self) -> int:
        """By how much its end may carry the account beyond what was checked."""
        return max(0, self.cost - (self.claim.amount_nano if self.was_surely_held else 0))


@dataclass
class Model:
    began_at: datetime
    length: timedelta | None
    calls: dict[UUID, Call] = field(default_factory=dict)
    """Those that were let in."""

    def period_at(self, now: datetime) -> datetime:
        return self.began_at if self.length is None else now - (now - self.began_at) % self.length

    def settled_since(self, start: datetime) -> list[Call]:
        return [each for each in self.calls.values() if each.is_settled and each.claim.made_at >= start]

    def spent(self, start: datetime) -> int:
        return sum(each.cost for each in self.settled_since(start))

    def allowed(self, start: datetime) -> int:
        return LIMIT + sum(each.overshoot for each in self.settled_since(start))

    def held(self, now: datetime | None = None) -> int:
        """Without ``now``, what expired is held as well."""
        waiting = [each.claim for each in self.calls.values() if not each.is_settled]
        return sum(each.amount_nano for each in waiting if now is None or each.expires_at > now)

    def has_room(self, amount: int, now: datetime) -> bool:
        used = self.spent(self.period_at(now)) + self.held(now)
        return used < LIMIT and used + amount <= LIMIT


class History:
    def __init__(self, stores: list[Store], user: User) -> None:
        assert user.period_started_at
        self.stores = stores
        length = None if user.reset_every_s is None else timedelta(seconds=user.reset_every_s)
        self.now = user.period_started_at
        self.model = Model(self.now, length)
        self.asked: list[Call] = []
        self.refused: list[Call] = []

    async def go_through(self, moments: list[Moment]) -> None:
        for moment in moments:
            self.now += timedelta(seconds=moment.after_s)
            could = [self._has_room(step) for step in moment.steps]
            self.refused = []
            await asyncio.gather(*(work for step in moment.steps for work in (self._do(step), self._look())))
            await self._check()
            if len(moment.steps) == 1 and could[0] is not None:
                assert could[0] is not bool(self.refused)
            if all(isinstance(step, Begin) for step in moment.steps):
                fits = [self.model.has_room(each.claim.amount_nano, self.now) for each in self.refused]
                assert not any(fits), "one was refused that fits even now"
        await self._end()

    def _has_room(self, step: Step) -> bool | None:
        return self.model.has_room(step.amount, self.now) if isinstance(step, Begin) else None

    def _do(self, step: Step) -> Awaitable[object]:
        if isinstance(step, Begin):
            return self._begin(step)
        if isinstance(step, End):
            return self._finish(self.asked[step.pick % len(self.asked)]) if self.asked else asyncio.sleep(0)
        return self.stores[-1].sweep(self.now)

    async def _begin(self, step: Begin) -> None:
        expires_at = self.now + timedelta(seconds=step.ttl_s)
        call = Call(make_claim(step.amount, made_at=self.now, expires_at=expires_at), step.cost)
        verdicts = await asyncio.gather(*(store.reserve(call.claim) for store in self.stores))
        assert set(verdicts) <= {"held", "over_budget"}
        self.asked.append(call)
        if "held" in verdicts:
            self.model.calls[call.claim.id] = call
        else:
            self.refused.append(call)

    async def _finish(self, call: Call) -> None:
        if not call.is_settled:
            call.is_settled = True
            call.was_surely_held = self.now < call.claim.expires_at
        settlement = Settlement(claim=call.claim, cost_nano=call.cost)
        await asyncio.gather(*(store.settle([settlement]) for store in self.stores))

    async def _look(self) -> User:
        """The account, which is never above what is allowed, whatever is under way."""
        user = await self.stores[0].get(User, "user-1")
        assert user and user.period_started_at
        assert user.spent_nano + user.reserved_nano <= self.model.allowed(user.period_started_at)
        return user

    async def _check(self) -> None:
        user = await self._look()
        assert user.period_started_at
        assert user.spent_nano == self.model.spent(user.period_started_at)
        assert self.model.held(self.now) <= user.reserved_nano <= self.model.held()

    async def _end(self) -> None:
        await self.stores[0].sweep(self.now)
        assert (await self._look()).reserved_nano == self.model.held(self.now)
        for call in self.asked:
            await self._finish(call)
        await self._check()
        assert (await self._look()).reserved_nano == 0


amounts = st.sampled_from((0, 1, 10, 40, 60, 99, 100, 101)) | st.integers(0, 120)
steps = st.one_of(
    st.builds(Begin, amounts, amounts, st.sampled_from((1, 30, 900))),
    st.builds(Begin, amounts, amounts, st.sampled_from((1, 30, 900))),
    st.builds(End, st.integers(0, 50)),
    st.builds(End, st.integers(0, 50)),
    st.just(Sweep()),
)
moments = st.builds(
    Moment, st.sampled_from((0, 0, 1, 29, 30, 60, 200)), st.lists(steps, min_size=1, max_size=8).map(tuple)
)
histories = st.lists(moments, max_size=12)
lengths = st.sampled_from((None, 30, 60, 86400))


@given(histories, lengths)
@settings(max_examples=200)
def test_any_history_keeps_to_the_budget_in_memory(history: list[Moment], length_s: int | None) -> None:
    asyncio.run(_live(_in_memory, "cas", history, length_s))


@pytest.mark.parametrize("strategy", ["for_update", "cas"])
@given(history=histories, length_s=lengths)
@settings(max_examples=40)
def test_any_history_keeps_to_the_budget_in_a_file(
    strategy: BudgetStrategy, history: list[Moment], length_s: int | None
) -> None:
    asyncio.run(_live(_in_a_file, strategy, history, length_s))


Opening = Callable[[BudgetStrategy, AsyncExitStack], Awaitable[list[Store]]]


async def _live(
    opening: Opening, strategy: BudgetStrategy, history: list[Moment], length_s: int | None
) -> None:
    async with AsyncExitStack() as stack:
        stores = await opening(strategy, stack)
        await stores[0].add(make_budget("budget-1", LIMIT, reset_every_s=length_s))
        await stores[0].add(make_user("user-1", budget_id="budget-1"))
        user = await stores[-1].get(User, "user-1")
        assert user
        await History(stores, user).go_through(history)


async def _in_memory(strategy: BudgetStrategy, stack: AsyncExitStack) -> list[Store]:
    store = await stack.enter_async_context(_opened("memory:", strategy))
    return [store, store]


async def _in_a_file(strategy: BudgetStrategy, stack: AsyncExitStack) -> list[Store]:
    url = f"sqlite:///{Path(stack.enter_context(TemporaryDirectory())) / 'gateway.db'}"
    return [await stack.enter_async_context(_opened(url, strategy)) for _ in range(2)]


@asynccontextmanager
async def _opened(url: str, strategy: BudgetStrategy) -> AsyncIterator[Store]:
    options = StoreOptions.model_validate({"url": url, "timeout_s": 30})
    async with load_store(url).open(options, strategy) as store:
        yield store
