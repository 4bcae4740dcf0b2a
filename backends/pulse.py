"""Waiting for something to have changed, without a queue, a lock or a task of its own."""

from __future__ import annotations

import asyncio

from .waiting import wait_for_end


class Pulse:
    """``beat`` wakes everyone who waits. Nothing is handed over: who wakes looks for himself, so a waiter
    that is cancelled takes nothing with it."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def beat(self) -> None:
        """Something changed."""
        if self._next is not None and not self._next.done():
            self._next.set_result(None)

    async def wait_until(self, when: float | None) -> None:
        """Return at the next beat, or at loop time ``when`` (seconds; None: no limit). May be cancelled."""
        loop = asyncio.get_running_loop()
        if self._next is None or self._next.done():
            self._next = loop.create_future()
        await wait_for_end(self._next, None if when is None else max(0.0, when - loop.time()))
