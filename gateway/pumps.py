"""Reads streams on after their client has left, so that the tokens the provider bills are known.

Takes over a provider's stream together with its call; gives the call its row when the stream ends, the time
is up or the process stops.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

from .calls import Call
from .endings import CLIENT_LEFT, SHUTDOWN
from .providers.base import EventStream
from .providers.errors import ProviderError

log = logging.getLogger("gateway.pumps")


class Pumps:
    """At most ``max_pumps`` streams, each for at most ``after_disconnect_s`` seconds."""

    def __init__(self, max_pumps: int, after_disconnect_s: float) -> None:
        self._max_pumps = max_pumps
        self._after_disconnect_s = after_disconnect_s
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def patience_s(self) -> float:
        """For how many seconds a call whose client leaves now would be read on: none when all are taken."""
        return self._after_disconnect_s if len(self._tasks) < self._max_pumps else 0.0

    def adopt(
        self, call: Call, stream: EventStream, resources: AsyncExitStack, left_at: float | None = None
    ) -> None:
        """Read ``stream`` on and finish ``call``; then close ``resources``, the provider's connection.
        ``left_at``: since when (loop time, seconds) the client has been gone; None: since now."""
        loop = asyncio.get_running_loop()
        gone_s = 0.0 if left_at is None else loop.time() - left_at
        seconds = max(0.0, self.patience_s - gone_s)
        task = loop.create_task(_read_on(call, stream, resources, seconds), name="stream pump")
        # A task that is cancelled before its first step runs none of its code: the row must not hang on it.
        task.add_done_callback(lambda task: self._ended(task, call))
        self._tasks.add(task)
        call.is_handed_over = True

    async def ended(self, within_s: float) -> bool:
        """Wait until the streams adopted so far ended, at most ``within_s`` seconds; whether they did."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=within_s)
        return not self._tasks

    def cancel(self) -> None:
        """End all pumps: each call still has its row (``shutdown``)."""
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None], call: Call) -> None:
        self._tasks.discard(task)
        call.finish(SHUTDOWN.unheard() if task.cancelled() else CLIENT_LEFT)
        if not task.cancelled() and (error := task.exception()):
            log.error("pump_failed", exc_info=error)


async def _read_on(call: Call, stream: EventStream, resources: AsyncExitStack, seconds: float) -> None:
    async with resources:
        try:
            async with asyncio.timeout(seconds):
                async for events in stream:
                    for event in events:
                        call.see(event)
        except (TimeoutError, ProviderError):
            pass  # the row says what was known by then
        except asyncio.CancelledError:
            call.finish(SHUTDOWN.unheard())
            raise
        call.finish(CLIENT_LEFT)
