"""What goes to the disk and what comes back, and when: decided in plain methods, done one after the other.

Takes batches whose time is up, or for which memory is short; gives back, one at a time, what the disk has,
once the sink is well. A batch on its way to the disk stays in flight in the ledger.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..batching import BatchingOptions
from ..dispatch import Dispatcher, Job
from ..errors import SpoolUnavailable
from ..ledger import Ledger
from ..pulse import Pulse
from ..record import Batch
from .spool import Spool

log = logging.getLogger("backends.spool")

PAUSE_S = 1.0
"""After the disk failed, or gave nothing though it should have."""
ADOPT_EVERY_S = 30.0


class SpoolTraffic:
    """The way between one ledger and one spool. ``spills_early``: memory is kept free by the disk."""

    def __init__(
        self,
        spool: Spool,
        ledger: Ledger,
        dispatcher: Dispatcher,
        options: BatchingOptions,
        pulse: Pulse,
        *,
        spills_early: bool,
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._options = options
        self._pulse = pulse
        self._spills_early = spills_early
        self._paused_until = 0.0
        self._adopt_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self, is_draining: Callable[[], bool]) -> None:
        """Begin. While ``is_draining()`` nothing is fetched any more."""
        self._is_draining = is_draining
        loop = asyncio.get_running_loop()
        self._adopt_at = loop.time() + ADOPT_EVERY_S
        self._task = loop.create_task(self._run(), name="log-writer spool")
        self._task.add_done_callback(self._ended)

    def end(self) -> None:
        """Let go: what was under way is the closing writer's to account for."""
        if self._task is not None:
            self._task.cancel()

    # --- deciding

    def next_spill(self, now: float) -> Job | None:
        """A job whose rows should go to the disk now."""
        if now < self._paused_until or self._dispatcher.is_closed:
            return None
        overdue = now - self._options.batch_deadline_s
        if job := self._dispatcher.take(lambda job: job.must_spill or job.since <= overdue):
            return job
        head = self._ledger.queue_head
        if head is not None and head.accepted_at <= overdue:  # behind an open breaker none of them was tried
            return self._claimed(now)
        if not (self._spills_early and self._ledger.is_pressed and self._spool.room):
            return None
        if job := self._dispatcher.take(lambda job: True):
            return job
        return self._claimed(now)

    def _claimed(self, now: float) -> Job | None:
        batch = self._ledger.claim(self._options.max_rows, self._options.max_bytes)
        return Job(batch, since=now) if batch else None

    def wants_batch(self, now: float) -> bool:
        """Whether there is something on the disk, and the sink and the memory are well enough for it."""
        return (
            now >= self._paused_until
            and not self._is_draining()
            and self._ledger.counts().spooled > 0
            and self._dispatcher.breaker.state == "closed"
            and not self._ledger.has_fetched
            and self._ledger.is_relaxed
        )

    def wake_at(self, now: float) -> float:
        """When to look again without anything else happening."""
        times = [self._adopt_at]
        if (since := self._dispatcher.oldest_since()) is not None:
            times.append(since + self._options.batch_deadline_s)
        if head := self._ledger.queue_head:
            times.append(head.accepted_at + self._options.batch_deadline_s)
        if self._paused_until > now:
            times.append(self._paused_until)
        return max(min(times), self._paused_until)

    # --- waiting

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._dispatcher.is_closed:
            now = loop.time()
            if job := self.next_spill(now):
                await self._spill(job)
            elif self.wants_batch(now):
                await self._fetch()
            elif now >= self._adopt_at:
                await self._adopt()
            else:
                await self._pulse.wait_until(self.wake_at(now))

    async def _spill(self, job: Job) -> None:
        assert job.batch is not None
        try:
            await self._spool.keep(job.batch)
        except SpoolUnavailable:
            self._pause()
            self._dispatcher.keep(job, asyncio.get_running_loop().time())
        else:
            self._dispatcher.spilled(job)
        self._pulse.beat()

    async def _fetch(self) -> None:
        try:
            batch = await self._spool.next_batch()
        except SpoolUnavailable:
            batch = None
        if lost := self._spool.take_lost():
            log.error("spool_lost_rows", extra={"count": lost})
            self._ledger.lose(lost)
        if batch is None or self._dispatcher.is_closed:
            return self._pause()
        if any(row.boot_id is None for row in batch.rows):
            batch = self._ledger.number(batch)
            if not await self._keep(batch):  # the number is told to the sink only once the disk knows it
                return self._pause()
        self._dispatcher.fetched(batch, asyncio.get_running_loop().time())
        self._pulse.beat()

    async def _keep(self, batch: Batch) -> bool:
        try:
            await self._spool.keep(batch)
        except SpoolUnavailable:
            return False
        return not self._dispatcher.is_closed

    async def _adopt(self) -> None:
        self._adopt_at = asyncio.get_running_loop().time() + ADOPT_EVERY_S
        if not self._is_draining():
            rows = await self._spool.adopt()
            self._ledger.recover(rows)

    def _pause(self) -> None:
        self._paused_until = asyncio.get_running_loop().time() + PAUSE_S

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("spool_traffic_died", exc_info=error)
            if not self._dispatcher.is_closed:
                self.start(self._is_draining)
