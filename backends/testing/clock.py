"""An event loop on which waiting takes no time.

When nothing is ready, its time jumps to the next timer; three hours of timers pass in a moment, always in the
same order. Work on threads is waited for in real time, and no time passes meanwhile. Meant for code without
sockets: a reply that is on its way does not hold the time back. The wall clock is not touched.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

MAX_THREAD_WAIT_S = 60.0
"""Real seconds after which a thread that does not come back is called stuck."""


MAX_ROUNDS_AT_ONE_INSTANT = 100_000
"""Rounds of the loop after which somebody who keeps it busy while no time passes is called out."""


class WouldWaitForEver(RuntimeError):
    """Every task waits, and no timer, thread or callback is left to wake one; or one that waits for nothing
    keeps the loop busy, and no time can pass."""


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop with a clock of its own: ``time()`` starts at 0 and knows only jumps.

    ``on_step``, if set, is called once per round of the loop, before its callbacks run. It may cancel tasks
    and set futures; it returns whether it did something.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._threads = 0
        self._rounds = 0
        self.on_step: Callable[[], bool] | None = None
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def run_in_executor(  # type: ignore[override]  # typeshed types the functions by position alone
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """As the base class does; until the future is done, no time passes."""
        future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_is_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """As the base class does; it waits for a thread that no executor knows."""
        self._threads += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._threads -= 1

    def _thread_is_done(self, _: asyncio.Future[Any]) -> None:
        self._threads -= 1

    def _step(self) -> bool:
        self._rounds += 1
        if self._rounds > MAX_ROUNDS_AT_ONE_INSTANT:
            raise WouldWaitForEver(f"{self._rounds} rounds of the loop, and no time has passed: who spins?")
        return self.on_step is not None and self.on_step()

    def _jump(self, seconds: float) -> None:
        self._rounds = 0 if seconds else self._rounds
        self._now += seconds


class _JumpingSelector(selectors.BaseSelector):
    """The one place where an event loop waits, and so the one place where time can be made to jump."""

    def __init__(self, loop: VirtualClockLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._loop._step():
            timeout = 0
        if ready := self._real.select(0):
            return ready
        if self._loop._threads and timeout != 0:
            return self._wait_for_thread()
        if timeout is None:
            raise WouldWaitForEver("every task waits, and there is no timer and no thread to wait for")
        self._loop._jump(timeout)
        return []

    def _wait_for_thread(self) -> list[tuple[selectors.SelectorKey, int]]:
        if ready := self._real.select(MAX_THREAD_WAIT_S):
            self._loop._rounds = 0
            return ready
        raise WouldWaitForEver(f"a thread did not come back within {MAX_THREAD_WAIT_S:.0f} real seconds")

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """What ``main`` returns, run on a ``VirtualClockLoop`` of its own. Raises ``WouldWaitForEver`` instead
    of hanging. To be called where no event loop runs."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


def virtual_clock(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Decorator: a coroutine test that runs on a virtual clock. Fixtures work, as long as they are
    synchronous; the test must not bear pytest-asyncio's mark."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    return run
