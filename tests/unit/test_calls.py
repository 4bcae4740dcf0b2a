"""A caller is free when it is cancelled; its call is not forgotten."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from backends.calls import Calls, in_daemon_thread
from backends.errors import SinkRetryable


class Sluggish:
    """A call that does not heed being cancelled until ``opened`` is set."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.is_done = False

    async def __call__(self, answer: str = "answer") -> str:
        self.entered.set()
        while not self.opened.is_set():
            try:
                await self.opened.wait()
            except asyncio.CancelledError:
                pass
        self.is_done = True
        return answer


async def test_a_call_gives_what_it_gives() -> None:
    calls, sluggish = Calls(), Sluggish()
    sluggish.opened.set()

    assert await calls.run(sluggish("yes")) == "yes"


async def test_a_call_raises_what_it_raises() -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await Calls().run(fail())


async def test_a_cancelled_caller_is_free_and_the_call_goes_on() -> None:
    calls, sluggish = Calls(), Sluggish()
    caller = asyncio.ensure_future(calls.run(sluggish()))
    await sluggish.entered.wait()

    caller.cancel()
    await asyncio.wait({caller})

    assert caller.cancelled() and not sluggish.is_done
    sluggish.opened.set()
    await calls.close(30)
    assert sluggish.is_done


async def test_what_a_call_raises_when_nobody_waits_any_more_is_no_warning() -> None:
    calls, gate = Calls(), asyncio.Event()

    async def fail() -> None:
        await gate.wait()
        raise KeyError("x")

    caller = asyncio.ensure_future(calls.run(fail()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait({caller})
    gate.set()
    await calls.close(30)

    gc.collect()


async def test_end_frees_every_caller_whatever_the_calls_do() -> None:
    calls, sluggish = Calls(), Sluggish()
    callers = [asyncio.ensure_future(calls.run(sluggish())) for _ in range(3)]
    await sluggish.entered.wait()

    calls.end()
    calls.end()
    await asyncio.wait(callers)

    assert [getattr(caller.exception(), "code", None) for caller in callers] == ["aborted"] * 3
    sluggish.opened.set()
    await calls.close(30)


async def test_nothing_begins_after_the_end() -> None:
    calls, sluggish = Calls(), Sluggish()
    calls.end()

    with pytest.raises(SinkRetryable) as caught:
        await calls.run(sluggish())

    assert (caught.value.code, caught.value.ambiguous) == ("closing", False)
    assert not sluggish.entered.is_set()


async def test_closing_waits_for_no_call_longer_than_it_was_told() -> None:
    calls, sluggish = Calls(), Sluggish()
    caller = asyncio.ensure_future(calls.run(sluggish()))
    await sluggish.entered.wait()

    await calls.close(0.01)
    await asyncio.wait({caller})

    assert not sluggish.is_done
    sluggish.opened.set()


async def test_a_call_that_failed_keeps_nothing_of_what_it_was_given() -> None:
    class Cargo:
        pass

    async def fail(cargo: Cargo) -> None:
        raise KeyError("x")

    async def send() -> weakref.ref[Cargo]:
        cargo = Cargo()
        try:
            await Calls().run(fail(cargo))
        except KeyError:
            pass
        return weakref.ref(cargo)

    gc.disable()
    try:
        assert (await send())() is None
    finally:
        gc.enable()


async def test_a_daemon_thread_tells_its_end_and_its_error() -> None:
    seen: list[bool] = []
    await in_daemon_thread(lambda: seen.append(threading.current_thread().daemon))
    assert seen == [True]

    with pytest.raises(ZeroDivisionError):
        await in_daemon_thread(lambda: 1 / 0)
