"""The store is known to be down when a question and a look failed, until anything succeeds."""

from __future__ import annotations

import asyncio

import pytest
from letting_in import CountingStore, memory_store

from backends import StoreUnavailable
from gateway.access import opening
from gateway.access.store_health import StoreHealth


@pytest.fixture
def store():
    return CountingStore(memory_store())


@pytest.fixture
def health(store):
    return StoreHealth(store)


async def ask(health, store):
    return await health.watched(store.find_key)("hash")


async def fail(health, store):
    with pytest.raises(StoreUnavailable):
        await ask(health, store)


async def test_it_takes_a_question_and_a_look_to_know(health, store) -> None:
    await ask(health, store)
    store.is_down = True

    await health.look()
    await health.look()
    assert health.is_ailing and not health.is_down
    await fail(health, store)

    assert health.is_down


async def test_a_store_that_never_answered_is_down_with_the_first_look(health, store) -> None:
    store.is_down = True

    await health.look()
    assert health.is_down
    store.is_down = False
    await health.look()

    assert not health.is_down


async def test_one_failure_among_good_looks_is_not_down(health, store) -> None:
    store.is_down = True
    await fail(health, store)
    await fail(health, store)

    assert not health.is_down


@pytest.mark.parametrize("recovers", ["look", "question"])
async def test_anything_that_succeeds_is_the_end_of_it(health, store, recovers, caplog) -> None:
    caplog.set_level("INFO")
    store.is_down = True
    await fail(health, store)
    await health.look()
    assert health.is_down

    store.is_down = False
    await (health.look() if recovers == "look" else ask(health, store))

    assert not health.is_down and not health.is_ailing
    assert [record.getMessage() for record in caplog.records] == ["store_down", "store_up"]


async def test_the_task_looks_again_and_again(store) -> None:
    health = StoreHealth(store, look_every_s=0)
    store.is_down = True
    running = asyncio.ensure_future(health.run())
    await store.was_asked("ping", 3)
    running.cancel()
    await asyncio.wait({running})

    await fail(health, store)

    assert health.is_down


async def test_the_task_looks_at_once(store) -> None:
    health = StoreHealth(store, look_every_s=1000)
    running = asyncio.ensure_future(health.run())

    await store.was_asked("ping", 1)

    running.cancel()
    await asyncio.wait({running})


async def test_a_bug_in_a_store_does_not_end_the_tasks_behind_the_door(store, monkeypatch, caplog) -> None:
    monkeypatch.setattr(opening, "AFTER_A_BUG_S", 0)
    runs = []

    async def run() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise RuntimeError

    await opening._kept_running(run)

    assert len(runs) == 3
    assert [record.getMessage() for record in caplog.records] == ["access_task_failed"] * 2
