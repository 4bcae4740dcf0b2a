"""Tells the sink when this run began, how many rows it accepted and which of them it gave up, so that a
missing row shows later.

Beside the rows: a sink that cannot take it is asked again, rows never wait for it. What it did not take by
the end is kept with the dead letters, and told by the next run.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from .dead_letters import DeadLetters
from .errors import DeadLettersUnavailable, SinkError
from .pulse import Pulse
from .record import Boot
from .retry import CAP_RUNNING_S, Backoff
from .sink import LogSink

log = logging.getLogger("backends.boots")


class Numbers:
    """A set of numbers that grows; as a text its ranges, ``5-9,12``."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, number: int) -> None:
        """Take it in. May be repeated."""
        place = bisect(self._starts, number)
        if place and number <= self._ends[place - 1]:
            return
        self._starts.insert(place, number)
        self._ends.insert(place, number)
        self._join(place)
        if place:
            self._join(place - 1)

    def _join(self, place: int) -> None:
        """The range at ``place`` and the one behind it, if there is no gap between."""
        if place + 1 < len(self._starts) and self._ends[place] + 1 == self._starts[place + 1]:
            del self._ends[place], self._starts[place + 1]

    def __str__(self) -> str:
        ranges = zip(self._starts, self._ends, strict=True)
        return ",".join(f"{start}" if start == end else f"{start}-{end}" for start, end in ranges)


class BootRegister:
    """The boot record of one writer, and those that earlier runs could not hand in. ``abandoned`` are the
    numbers of this run's rows that were given up."""

    def __init__(
        self, sink: LogSink, letters: DeadLetters, boot_id: UUID, backoff: Backoff, attempt_timeout_s: float
    ) -> None:
        self.abandoned = Numbers()
        self._sink = sink
        self._letters = letters
        self._boot = Boot(id=boot_id, started_at=datetime.now(UTC))
        self._backoff = backoff
        self._attempt_timeout_s = attempt_timeout_s
        self._is_announced = False
        self._told: tuple[int, str] | None = None
        self._announcing: asyncio.Task[None] | None = None

    def announce(self, pulse: Pulse, is_over: Callable[[], bool]) -> None:
        """Record the start, and what earlier runs left to be told, again and again until it is taken or
        ``is_over()``. May be repeated when more was found."""
        if self._announcing is None or self._announcing.done():
            self._announcing = asyncio.get_running_loop().create_task(
                self._announce(pulse, is_over), name="log-writer boot"
            )

    async def close(self, last_seq: int, within_s: float) -> None:
        """Record the end, once, in at most ``within_s`` seconds."""
        boot = self._closed(last_seq)
        if await self._record(boot, within_s):
            self._told = (last_seq, boot.abandoned)

    def keep(self, last_seq: int) -> None:
        """Keep the end for the next run, unless the sink has taken exactly that. Blocks for one commit; may
        be repeated, with what has come since."""
        boot = self._closed(last_seq)
        if self._told == (last_seq, boot.abandoned):
            return
        try:
            self._letters.keep_boot(boot)
        except DeadLettersUnavailable as error:
            told = {"last_seq": last_seq, "abandoned": boot.abandoned}
            log.error("boot_not_kept", extra={"boot_id": str(boot.id), **told, "why": str(error)})

    def end(self) -> None:
        """Let go of a call that is still under way; the sink is being closed."""
        if self._announcing is not None:
            self._announcing.cancel()

    def _closed(self, last_seq: int) -> Boot:
        abandoned = str(self.abandoned)
        return replace(self._boot, closed_at=datetime.now(UTC), last_seq=last_seq, abandoned=abandoned)

    async def _announce(self, pulse: Pulse, is_over: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        attempts = 0
        while not is_over() and not await self._tell_all():
            attempts += 1
            again_at = loop.time() + self._backoff.delay(attempts, CAP_RUNNING_S)
            while not is_over() and loop.time() < again_at:
                await pulse.wait_until(again_at)

    async def _tell_all(self) -> bool:
        """Whether the sink knows all that we do."""
        if not self._is_announced:
            self._is_announced = await self._record(self._boot, self._attempt_timeout_s)
        if not self._is_announced:
            return False
        for boot in self._letters.kept_boots():
            if not await self._record(boot, self._attempt_timeout_s):
                return False
            self._letters.drop_boot(boot.id)
        return True

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
