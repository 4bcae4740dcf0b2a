"""Tells the sink when this run began and how many rows it accepted, so that a missing row shows later.

Best effort beside the rows: a sink that cannot take it is asked again, rows never wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from .errors import SinkError
from .pulse import Pulse
from .record import Boot
from .retry import CAP_RUNNING_S, Backoff
from .sink import LogSink

log = logging.getLogger("backends.boots")


class BootRegister:
    """The boot record of one writer."""

    def __init__(self, sink: LogSink, boot_id: UUID, backoff: Backoff, attempt_timeout_s: float) -> None:
        self._sink = sink
        self._boot = Boot(id=boot_id, started_at=datetime.now(UTC))
        self._backoff = backoff
        self._attempt_timeout_s = attempt_timeout_s
        self._announcing: asyncio.Task[None] | None = None

    def announce(self, pulse: Pulse, is_over: Callable[[], bool]) -> None:
        """Record the start, again and again until it is taken or ``is_over()``."""
        self._announcing = asyncio.get_running_loop().create_task(
            self._announce(pulse, is_over), name="log-writer boot"
        )

    async def close(self, last_seq: int, within_s: float) -> bool:
        """Record the end, once, in at most ``within_s`` seconds; whether the sink took it."""
        boot = replace(self._boot, closed_at=datetime.now(UTC), last_seq=last_seq)
        return await self._record(boot, within_s)

    def end(self) -> None:
        """Let go of a call that is still under way; the sink is being closed."""
        if self._announcing is not None:
            self._announcing.cancel()

    async def _announce(self, pulse: Pulse, is_over: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        attempts = 0
        while not is_over() and not await self._record(self._boot, self._attempt_timeout_s):
            attempts += 1
            again_at = loop.time() + self._backoff.delay(attempts, CAP_RUNNING_S)
            while not is_over() and loop.time() < again_at:
                await pulse.wait_until(again_at)

    async def _record(self, boot: Boot, within_s: float) -> bool:
        task = asyncio.get_running_loop().create_task(self._sink.record_boot(boot), name="log-writer boot")
        task.add_done_callback(_log_failure)
        try:
            await asyncio.wait({task}, timeout=within_s)
        finally:
            task.cancel()  # nothing is lost with it: the record is made again from what we hold
        return task.done() and not task.cancelled() and task.exception() is None


def _log_failure(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if isinstance(error, SinkError):
        log.info("boot_not_recorded", extra={"code": error.code})
    elif error is not None:
        log.warning("boot_not_recorded", exc_info=error)
