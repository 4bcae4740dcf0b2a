"""What calls held and spent reaches the store, whatever happens to it; what cannot is named."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from uuid_utils.compat import uuid7

from backends import Budget, Claim, Settlement, StoreUnavailable, User, to_millisecond
from backends.store.memory import MemoryStore
from gateway.money import settlements as module
from gateway.money.settlements import Settlements

NOW = to_millisecond(datetime.now(UTC))
LONG_S = 20.0


class Shaky(MemoryStore):
    """Does not answer while ``is_down``; ``failed`` counts. ``gate``: holds every settle back until set."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.failed = 0
        self.has_failed = asyncio.Event()
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[int] = []

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        self.entered.set()
        await self.gate.wait()
        if self.is_down:
            self.failed += 1
            self.has_failed.set()
            raise StoreUnavailable("down")
        self.batches.append(len(settlements))
        await super().settle(settlements)

    async def user(self) -> User:
        user = await self.get(User, "u")
        assert user is not None
        return user

    async def held(self, amount_nano: int = 10, ttl_s: float = 900) -> Claim:
        """A claim that the store holds."""
        claim = Claim(
            id=uuid7(),
            user_id="u",
            amount_nano=amount_nano,
            made_at=to_millisecond(datetime.now(UTC)),
            expires_at=to_millisecond(datetime.now(UTC) + timedelta(seconds=ttl_s)),
        )
        assert await self.reserve(claim) == "held"
        return claim


@pytest.fixture
async def store() -> Shaky:
    store = Shaky()
    await store.add(Budget(id="b", limit_nano=10**9, created_at=NOW))
    await store.add(User(id="u", budget_id="b", created_at=NOW))
    return store


@pytest.fixture
async def settlements(store: Shaky, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Settlements]:
    monkeypatch.setattr(module, "BASE_S", 0.0001)
    settlements = Settlements(store, 900, Random(0))
    settlements.start()
    yield settlements
    store.gate.set()
    await settlements.stop(0)


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(LONG_S):
        return await awaitable


async def test_what_a_call_held_is_let_go_and_what_it_cost_is_spent(
    store: Shaky, settlements: Settlements
) -> None:
    settlements.put(Settlement(claim=await store.held(), cost_nano=7))

    await soon(settlements.settled())

    user = await store.user()
    assert (user.spent_nano, user.reserved_nano, len(settlements)) == (7, 0, 0)


async def test_settlements_that_come_together_are_one_question(
    store: Shaky, settlements: Settlements
) -> None:
    for _ in range(module.BATCH + 1):
        settlements.put(Settlement(claim=await store.held(), cost_nano=1))

    await soon(settlements.settled())

    assert store.batches == [module.BATCH, 1]
    assert (await store.user()).spent_nano == module.BATCH + 1


async def test_a_store_that_comes_back_gets_everything_once(
    store: Shaky, settlements: Settlements, caplog: pytest.LogCaptureFixture
) -> None:
    store.is_down = True
    settlements.put(Settlement(claim=await store.held(), cost_nano=7))
    while store.failed < 3:
        store.has_failed.clear()
        await soon(store.has_failed.wait())
    settlements.put(Settlement(claim=await store.held(), cost_nano=8))
    assert len(settlements) == 2

    store.is_down = False
    await soon(settlements.settled())

    user = await store.user()
    assert (user.spent_nano, user.reserved_nano) == (15, 0)
    assert [record.message for record in caplog.records] == ["settlements_wait"], "said once, not at each try"


async def test_a_stop_settles_what_waits(store: Shaky, settlements: Settlements) -> None:
    store.gate.clear()
    settlements.put(Settlement(claim=await store.held(), cost_nano=7))
    await soon(store.entered.wait())
    settlements.put(Settlement(claim=await store.held(), cost_nano=8))
    stopping = asyncio.ensure_future(settlements.stop(LONG_S))
    await asyncio.sleep(0)

    store.gate.set()
    await soon(stopping)

    assert (await store.user()).spent_nano == 15


async def test_a_stop_without_a_store_names_what_is_left(
    store: Shaky, settlements: Settlements, caplog: pytest.LogCaptureFixture
) -> None:
    store.is_down = True
    claim = await store.held()
    settlements.put(Settlement(claim=claim, cost_nano=7))
    await soon(store.has_failed.wait())

    await settlements.stop(0.01)
    await settlements.stop(0)

    (line,) = [record for record in caplog.records if record.message == "settlements_left"]
    assert (line.count, line.ids) == (1, [str(claim.id)])  # type: ignore[attr-defined]


async def test_a_settling_under_way_is_cut_only_at_the_deadline(
    store: Shaky, settlements: Settlements, caplog: pytest.LogCaptureFixture
) -> None:
    store.gate.clear()
    settlements.put(Settlement(claim=await store.held(), cost_nano=7))
    await soon(store.entered.wait())

    await settlements.stop(0.01)

    assert [record.message for record in caplog.records] == ["settlements_left"]
    assert (await store.user()).spent_nano == 0


async def test_a_settling_that_ends_after_the_rest_was_named_does_no_harm(
    store: Shaky, settlements: Settlements
) -> None:
    store.gate.clear()
    settlements.put(Settlement(claim=await store.held(), cost_nano=7))
    await soon(store.entered.wait())
    settlements.name_the_rest()
    store.gate.set()

    settlements.put(Settlement(claim=await store.held(), cost_nano=5))
    await soon(settlements.settled())

    user = await store.user()
    assert (user.spent_nano, user.reserved_nano) == (12, 0)


async def test_what_comes_after_the_stop_is_named_too(
    store: Shaky, settlements: Settlements, caplog: pytest.LogCaptureFixture
) -> None:
    await settlements.stop(LONG_S)
    claim = await store.held()

    settlements.put(Settlement(claim=claim, cost_nano=7))

    (line,) = caplog.records
    assert (line.message, line.ids) == ("settlements_left", [str(claim.id)])  # type: ignore[attr-defined]


async def test_claims_that_may_not_be_held_are_not_gathered_without_end(
    store: Shaky, settlements: Settlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNSURE", 3)
    store.is_down = True
    claims = [await store.held() for _ in range(5)]

    for claim in claims[:4]:
        settlements.let_go(claim)
    settlements.put(Settlement(claim=claims[4], cost_nano=7))

    assert len(settlements) == 4, "what a call cost is always taken"
    store.is_down = False
    await soon(settlements.settled())
    user = await store.user()
    assert (user.spent_nano, user.reserved_nano) == (7, 10)


async def test_a_bug_in_the_store_costs_no_settlement(
    store: Shaky, settlements: Settlements, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed = asyncio.Event()

    async def fail(settlements: Sequence[Settlement]) -> None:
        failed.set()
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(store, "settle", fail)
        settlements.put(Settlement(claim=await store.held(), cost_nano=7))
        await soon(failed.wait())
    await soon(settlements.settled())

    assert (await store.user()).spent_nano == 7
    assert caplog.records[0].levelno == logging.WARNING and caplog.records[0].exc_info


async def test_a_settlement_that_the_store_stumbles_over_holds_up_no_other(
    store: Shaky, settlements: Settlements, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = [await store.held() for _ in range(5)]
    settle, all_others = store.settle, asyncio.Event()

    async def stumble(batch: Sequence[Settlement]) -> None:
        if any(each.claim == claims[1] for each in batch):
            raise ZeroDivisionError
        await settle(batch)
        if (await store.user()).spent_nano == 4:
            all_others.set()

    with monkeypatch.context() as patched:
        patched.setattr(store, "settle", stumble)
        for claim in claims:
            settlements.put(Settlement(claim=claim, cost_nano=1))
        await soon(all_others.wait())
    await soon(settlements.settled())

    user = await store.user()
    assert (user.spent_nano, user.reserved_nano) == (5, 0)


async def test_claims_that_expired_are_swept(store: Shaky, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.held(ttl_s=-1)
    swept = asyncio.Event()
    sweep = store.sweep

    async def sweep_and_tell(now: datetime) -> int:
        count = await sweep(now)
        swept.set()
        return count

    monkeypatch.setattr(store, "sweep", sweep_and_tell)
    settlements = Settlements(store, 0.01)
    settlements.start()
    await soon(swept.wait())
    swept.clear()
    await soon(swept.wait())  # again and again
    await settlements.stop(LONG_S)

    assert (await store.user()).reserved_nano == 0
