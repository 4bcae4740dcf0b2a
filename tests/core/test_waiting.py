"""Waiting for a future that others may wait for too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from backends.errors import SpoolUnavailable
from backends.testing import virtual_clock
from backends.waiting import wait_for_end


class Watched(asyncio.Future[None]):
    """A future that tells who waits for it."""

    @property
    def waiters(self) -> int:
        return len(self._callbacks or ())  # type: ignore[attr-defined]


async def begun(future: Watched, timeout_s: float | None = None) -> asyncio.Task[None]:
    waiting = asyncio.ensure_future(wait_for_end(future, timeout_s))
    await asyncio.sleep(0)
    assert future.waiters == 1
    return waiting


@virtual_clock
async def test_it_returns_at_the_time_limit_and_leaves_the_future_to_others() -> None:
    loop, future = asyncio.get_running_loop(), Watched()
    began = loop.time()

    await wait_for_end(future, 5.0)

    assert loop.time() - began == pytest.approx(5.0)
    assert not future.done() and future.waiters == 0


@pytest.mark.parametrize(
    "end",
    [
        lambda future: future.set_result(None),
        lambda future: future.set_exception(SpoolUnavailable("full")),
        lambda future: future.cancel(),
    ],
    ids=["result", "error", "cancel"],
)
@virtual_clock
async def test_it_returns_however_the_future_ends_and_raises_nothing(end: Callable[[Watched], None]) -> None:
    loop, future = asyncio.get_running_loop(), Watched()
    began, waiting = loop.time(), await begun(future, 5.0)

    end(future)
    await waiting
    await wait_for_end(future, 5.0)

    assert loop.time() == began
    assert future.cancelled() or isinstance(future.exception(), SpoolUnavailable | None)


@virtual_clock
async def test_who_gives_up_waiting_ends_neither_the_future_nor_the_others() -> None:
    future = Watched()
    one = await begun(future)
    other = asyncio.ensure_future(wait_for_end(future, None))
    await asyncio.sleep(0)

    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one

    assert not future.done() and future.waiters == 1
    future.set_result(None)
    await other


@pytest.mark.parametrize("is_ended_first", [True, False], ids=["end before cancel", "cancel before end"])
@virtual_clock
async def test_who_is_cancelled_in_the_step_in_which_the_future_ends_hears_it(is_ended_first: bool) -> None:
    future = Watched()
    waiting = await begun(future, 5.0)

    steps: list[Callable[[], object]] = [lambda: future.set_result(None), waiting.cancel]
    for step in steps if is_ended_first else reversed(steps):
        step()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert future.waiters == 0
