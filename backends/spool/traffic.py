"""What goes to the disk and what comes back, and when: decided in plain methods, done one after the other.

Takes batches whose time is up, or for which memory is short; gives back, one at a time, what the disk has,
once the sink is well. A batch on its way to the disk stays in flight in the ledger.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from datetime import UTC, datetime
from uuid import UUID

from ..batching import BatchingOptions
from ..dispatch import Dispatcher
from ..errors import SpoolUnavailable
from ..job import Job
from ..ledger import Ledger
from ..pulse import Pulse
from ..record import Batch
from .spool import Spool

log = logging.getLogger("backends.spool")

PAUSE_S = 1.0
"""After the disk failed, or gave nothing though it should have."""
LOOK_AFTER_S = 30.0
"""How often the disk is tried, and searched for what dead siblings left;"""
LOOK_AFTER_ILL_S = 5.0
"""while it is ailing."""


class SpoolTraffic:
    """The way between one ledger and one spool. ``spills_early``: memory is kept free by the disk.

    ``adopt_letters`` takes over the dead letters of dead siblings; it goes first, so that a row of theirs
    that has a letter and is in their spool too is not taken in twice.
    """

    def __init__(
        self,
        spool: Spool,
        ledger: Ledger,
        dispatcher: Dispatcher,
        options: BatchingOptions,
        pulse: Pulse,
        *,
        spills_early: bool,
        adopt_letters: Callable[[], Collection[UUID]],
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._options = options
        self._pulse = pulse
        self._spills_early = spills_early
        self._adopt_letters = adopt_letters
        self._paused_until = 0.0
        self._look_after_at = 0.0
        self._half_numbered: Batch | None = None
        self._spilling = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._look_after_at = loop.time() + LOOK_AFTER_ILL_S
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
        if job := self._dispatcher.take(lambda job: job.must_spill or self._is_overdue(job.since, now)):
            return job
        head = self._ledger.queue_head
        if head is not None and self._is_overdue(head.accepted_at, now):  # not tried, behind an open breaker
            return self._claimed(now)
        if not (self._spills_early and self._ledger.room.is_crowded and self._spool.room):
            return None
        if job := self._dispatcher.take(lambda job: True):
            return job
        return self._claimed(now)

    def _is_overdue(self, since: float, now: float) -> bool:
        """Whether a row's time is up; once nothing is sent any more, everybody's is."""
        return self._dispatcher.is_halted or since + self._options.batch_deadline_s <= now

    @property
    def has_more(self) -> bool:
        """Whether there are rows, of those that nobody is sending, that could go to the disk."""
        is_waiting = self._ledger.queue_head is not None or self._dispatcher.oldest_since() is not None
        return is_waiting or self._spilling

    def _claimed(self, now: float) -> Job | None:
        batch = self._ledger.claim(self._options.max_rows, self._options.max_bytes)
        return Job(batch, since=now) if batch else None

    def fetch_at(self) -> float | None:
        """From when on (loop time) the next batch of the disk may be sent; None: not before a change."""
        is_one_due = self._ledger.counts().spooled > 0 and not self._ledger.has_fetched("spooled")
        at = self._dispatcher.fetch_at() if is_one_due else None
        return None if at is None else max(at, self._paused_until)

    def wake_at(self, now: float) -> float:
        """When to look again without anything else happening."""
        times = [self._look_after_at]
        if (since := self._dispatcher.oldest_since()) is not None:
            times.append(since + self._options.batch_deadline_s)
        if head := self._ledger.queue_head:
            times.append(head.accepted_at + self._options.batch_deadline_s)
        if (at := self.fetch_at()) is not None:
            times.append(at)
        if self._paused_until > now:
            times.append(self._paused_until)
        return max(min(times), self._paused_until)

    def _is_expired(self, batch: Batch) -> bool:
        max_age_s = self._spool.options.max_age_s
        if max_age_s is None:
            return False
        newest = max(row.timestamp for row in batch.rows)
        return (datetime.now(UTC) - newest).total_seconds() > max_age_s

    # --- waiting

    async def _run(self) -> None:
        while not self._dispatcher.is_closed:
            self._account()
            now = asyncio.get_running_loop().time()
            if job := self.next_spill(now):
                await self._spill(job)
            elif (fetch_at := self.fetch_at()) is not None and now >= fetch_at:
                await self._fetch()
            elif now >= self._look_after_at:
                await self._look_after()
            else:
                await self._pulse.wait_until(self.wake_at(now))

    def _account(self) -> None:
        """What came onto the disk, and what it turned out to have lost."""
        self._ledger.recover(self._spool.take_found())
        if lost := min(self._spool.take_lost(), self._ledger.counts().spooled):
            self._lose(lost)

    def _lose(self, rows: int) -> None:
        log.error("spool_lost_rows", extra={"count": rows})
        self._ledger.lose(rows)

    async def _spill(self, job: Job) -> None:
        assert job.batch is not None
        self._spilling, is_kept = True, False
        try:
            is_kept = await self._keep(job.batch)
        finally:  # whatever ended it: the job is nobody else's while we have it
            self._spilling = False
            self._after_spill(job, is_kept)

    def _after_spill(self, job: Job, is_kept: bool) -> None:
        if is_kept:
            self._dispatcher.spilled(job)
        else:
            self._pause()
            self._dispatcher.not_spilled(job, asyncio.get_running_loop().time())
        self._pulse.beat()

    async def _fetch(self) -> None:
        batch = await self._numbered(self._spool.next_batch)
        if batch is not None:
            self._dispatcher.fetched(batch, asyncio.get_running_loop().time())
            self._pulse.beat()

    async def _bury_expired(self) -> None:
        while self._spool.options.max_age_s and self._ledger.counts().spooled and not self._is_fetching():
            batch = await self._numbered(self._spool.first_batch)
            if batch is None or not self._is_expired(batch):
                return
            self._dispatcher.expired(batch, asyncio.get_running_loop().time())

    def _is_fetching(self) -> bool:
        return self._ledger.has_fetched("spooled")

    async def _numbered(self, read: Callable[[], Awaitable[Batch | None]]) -> Batch | None:
        """A batch of the disk, its rows numbered; None, after which there is a pause, for now."""
        batch = self._half_numbered or await self._read(read)
        self._account()
        if batch is None or self._dispatcher.is_closed:
            self._pause()
            return None
        if any(row.boot_id is None for row in batch.rows):
            batch = self._ledger.number(batch)
        elif self._half_numbered is None:
            return batch
        # The numbers are told to the sink only once the disk knows them; none is given twice, none left out.
        self._half_numbered = batch
        if not await self._keep(batch, is_numbered=True):
            self._pause()
            return None
        self._half_numbered = None
        return batch

    async def _read(self, read: Callable[[], Awaitable[Batch | None]]) -> Batch | None:
        try:
            batch = await read()
        except SpoolUnavailable:
            return None
        if batch is None and (left := self._ledger.counts().spooled):
            self._lose(left)  # the file was lost with them, or they in it
        return batch

    async def _keep(self, batch: Batch, *, is_numbered: bool = False) -> bool:
        return await self._spool.keep(batch, is_numbered=is_numbered) and not self._dispatcher.is_closed

    def unused_numbers(self) -> Iterator[int]:
        """Numbers of this boot that were given to rows of crashed calls, and did not get onto the disk with
        them: at the close they are nobody's."""
        for row in self._half_numbered.rows if self._half_numbered is not None else ():
            if row.boot_id == self._ledger.boot_id:
                yield row.seq

    async def _look_after(self) -> None:
        await self._spool.look_after(self._adopt_letters())
        self._account()
        await self._bury_expired()
        is_well = "spool_ailing" not in self._spool.reasons()
        after_s = LOOK_AFTER_S if is_well else LOOK_AFTER_ILL_S
        self._look_after_at = asyncio.get_running_loop().time() + after_s

    def _pause(self) -> None:
        self._paused_until = asyncio.get_running_loop().time() + PAUSE_S

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("spool_traffic_died", exc_info=error)
            task.get_loop().call_later(PAUSE_S, self._start_again)

    def _start_again(self) -> None:
        if not self._dispatcher.is_closed:
            self.start()
