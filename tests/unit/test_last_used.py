"""When keys were used is written now and then, and costs nobody anything when that fails."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from letting_in import LONG_AGO, CountingStore, make_api_key, make_user, memory_store

from backends import ApiKey
from gateway.access import last_used
from gateway.access.last_used import LastUsed


@pytest.fixture
async def store():
    store = CountingStore(memory_store())
    await store.add(make_user())
    for id in "ab":
        await store.add(make_api_key(f"tg-{id}", id=id))
    return store


async def used(store, id):
    at = (await store.get(ApiKey, id)).last_used_at
    return at and (at - LONG_AGO).total_seconds()


def touch(times, id, seconds):
    times.touch(id, LONG_AGO + timedelta(seconds=seconds))


async def test_many_calls_are_one_write_of_the_latest_time(store) -> None:
    times = LastUsed(store)
    for second in range(100):
        touch(times, "a", second)
    touch(times, "b", 7)

    await times.write()
    await times.write()

    assert (await used(store, "a"), await used(store, "b")) == (99, 7)
    assert store.asked["touch_keys"] == 1


async def test_what_the_store_did_not_take_is_written_later_unless_there_is_newer(store, caplog) -> None:
    times = LastUsed(store)
    touch(times, "a", 1)
    touch(times, "b", 1)
    store.is_down = True
    await times.write()
    touch(times, "a", 5)

    store.is_down = False
    await times.write()

    assert (await used(store, "a"), await used(store, "b")) == (5, 1)
    assert [record.getMessage() for record in caplog.records] == ["last_used_not_written"]


async def test_what_was_touched_while_a_write_failed_is_not_lost(store) -> None:
    times = LastUsed(store)
    touch(times, "a", 1)
    store.gate.clear()
    store.answers_late = True
    writing = asyncio.ensure_future(times.write())
    await store.arrived.wait()
    touch(times, "b", 9)
    store.gate.set()
    await writing

    await times.write()

    assert (await used(store, "a"), await used(store, "b")) == (1, 9)


async def test_the_task_writes_from_time_to_time(store) -> None:
    times = LastUsed(store, write_every_s=0)
    running = asyncio.ensure_future(times.run())
    touch(times, "a", 3)

    await store.was_asked("touch_keys", 1)
    touch(times, "a", 4)
    await store.was_asked("touch_keys", 2)
    running.cancel()
    await asyncio.wait({running})

    assert await used(store, "a") == 4


async def test_the_end_writes_for_the_last_time(store) -> None:
    times = LastUsed(store)
    touch(times, "a", 3)

    await times.close()

    assert await used(store, "a") == 3


async def test_the_end_does_not_wait_for_a_store_that_hangs(store, monkeypatch, caplog) -> None:
    monkeypatch.setattr(last_used, "AT_STOP_S", 0)
    times = LastUsed(store)
    touch(times, "a", 3)
    store.gate.clear()

    await times.close()

    assert [record.getMessage() for record in caplog.records] == ["last_used_not_written"]
