"""Calls of a driver that does not bear to be cancelled: owned here, and over for a caller when it likes.

Takes coroutines that end by themselves in bounded time; gives what they give. A caller that is cancelled is
free at once, and its call goes on without one, to its own end or to ours. Knows no driver and no database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from inspect import isawaitable
from threading import Thread
from typing import Any, TypeVar

from .errors import SinkRetryable

T = TypeVar("T")


class Calls:
    """The calls under way. Belongs to the event loop in which it was made."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()
        self._end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        """What ``call`` gives or raises. Raises ``SinkRetryable`` once ``end`` was called."""
        if self._end.done():
            call.close()
            raise SinkRetryable("closing", "the sink is closing", ambiguous=False)
        task = asyncio.ensure_future(call)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait({task, self._end}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() or task.cancelled():
                raise SinkRetryable("aborted", "the sink was told to end", ambiguous=True)
            return task.result()
        finally:
            del task  # its error's traceback leads back here, and would keep what was sent

    def end(self) -> None:
        """End every call, at once for its caller. Repeatable."""
        if not self._end.done():
            self._end.set_result(None)
        for task in self._tasks:
            task.cancel()

    async def close(self, patience_s: float) -> None:
        """End; calls that go on without a caller may take ``patience_s`` seconds before that, and as long to
        tidy up behind them."""
        if self._tasks and not self._end.done():
            await asyncio.wait(self._tasks, timeout=patience_s)
        self.end()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience_s)

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # perhaps nobody is left to hear of it


async def take_leave(
    leave: Callable[[], Awaitable[None]], close: Callable[[], object], patience_s: float
) -> None:
    """Let a driver say goodbye to its server by ``leave``, which may take ``patience_s`` seconds, and as long
    to notice that it took too long. Then ``close``, which does not wait for the server any more."""
    leaving = asyncio.ensure_future(leave())
    await asyncio.wait({leaving}, timeout=patience_s)
    if leaving.cancel():  # the server does not answer
        await asyncio.wait({leaving}, timeout=patience_s)
        rest = close()
        if isawaitable(rest):
            await rest


def in_daemon_thread(function: Callable[[], object]) -> Awaitable[None]:
    """Run ``function`` on a thread that no process waits for when it ends."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            function()
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)

    future.set_running_or_notify_cancel()  # whoever waits may give up; the thread's end is then nobody's
    Thread(target=run, name="driver-close", daemon=True).start()
    return asyncio.wrap_future(future)
