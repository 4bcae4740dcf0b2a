"""What calls held is let go and what they cost is charged, in the background, whatever the store is doing.

Takes settlements from calls that ended, synchronously; gives each to the store until it has taken it. What is
left at the end expires in the store by itself, uncharged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from random import Random

from backends import Claim, Settlement, Store, StoreUnavailable, to_millisecond

log = logging.getLogger("gateway.money")

BATCH = 200
BASE_S = 0.1
CAP_S = 5.0
CAP_STOPPING_S = 0.1
"""The longest pauses between two tries, while running and while stopping."""
MAX_SWEEP_S = 30.0
IDS_IN_LINE = 200
MAX_UNSURE = 10_000
"""With so many waiting, no claim is taken that may not be held at all: it expires by itself."""


class Settlements:
    """Those that wait, and the task that settles them. ``ttl_s``: how long claims live; a sweep lets go of
    those that expired, of any process."""

    def __init__(self, store: Store, ttl_s: float, rng: Random | None = None) -> None:
        self._store = store
        self._sweep_s = min(MAX_SWEEP_S, ttl_s / 4)
        self._rng = rng or Random()
        self._waiting: deque[Settlement] = deque()
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = 0
        self._most = BATCH
        self._is_over = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, settlement: Settlement) -> None:
        """Take over what became of a claim. Never raises, never waits."""
        self._waiting.append(settlement)
        self._idle.clear()
        self._changed.set()
        if self._is_over:
            self.name_the_rest()

    def let_go(self, claim: Claim) -> None:
        """Take over a claim of which nobody knows whether it is held. Callers who are refused for a store
        that is down ask again and again, so only some are kept. Never raises, never waits."""
        if len(self._waiting) < MAX_UNSURE:
            self.put(Settlement(claim=claim, cost_nano=0))

    def start(self) -> None:
        """Begin to settle and to sweep."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._settle_all(), name="settlements"),
            loop.create_task(self._sweep_often(), name="sweeper"),
        ]

    async def settled(self) -> None:
        """Return when nothing waits."""
        await self._idle.wait()

    async def stop(self, within_s: float) -> None:
        """Settle what waits, for at most ``within_s`` seconds; what is left then, or put later, is named in
        the log."""
        self._stopping.set()
        self._changed.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # a driver that does not heed a cancel must not hold up the end
            await asyncio.wait(self._tasks, timeout=CAP_STOPPING_S)
        self._is_over = True
        self.name_the_rest()

    def name_the_rest(self) -> None:
        """Say in the log what was not settled, and forget it; for a process that ends now."""
        if self._waiting:
            ids = [str(each.claim.id) for each in islice(self._waiting, IDS_IN_LINE)]
            log.warning("settlements_left", extra={"count": len(self._waiting), "ids": ids})
            self._waiting.clear()

    # --- settling

    async def _settle_all(self) -> None:
        while not (self._stopping.is_set() and not self._waiting):
            await self._changed.wait()
            self._changed.clear()
            while self._waiting:
                await self._settle(list(islice(self._waiting, self._most)))
                await self._pause()
            self._most = BATCH
            self._idle.set()

    async def _settle(self, batch: list[Settlement]) -> None:
        """Ask the store to take ``batch``, which is first in the queue until it did."""
        try:
            await self._store.settle(batch)
        except StoreUnavailable as error:
            self._fail(error.code)
        except Exception as error:  # a bug of ours or of the store's: money is not forgotten for it
            self._fail("bug", error)
            self._step_aside(batch)
        else:
            self._failures = 0
            self._forget(batch)

    def _forget(self, batch: list[Settlement]) -> None:
        """They are settled, and first in the queue, unless the rest was named and forgotten meanwhile."""
        for each in batch:
            if self._waiting and self._waiting[0] is each:
                self._waiting.popleft()

    def _step_aside(self, batch: list[Settlement]) -> None:
        """One of ``batch`` may be what the store stumbles over: from now on each is asked for alone, and who
        fails alone lets the others pass."""
        if len(batch) == 1:
            self._waiting.rotate(-1)
        self._most = 1

    def _fail(self, code: str, bug: Exception | None = None) -> None:
        self._failures += 1
        if self._failures == 1:
            log.warning("settlements_wait", exc_info=bug, extra={"code": code, "count": len(self)})

    async def _pause(self) -> None:
        """After a failure, the longer the more there were; a stop cuts it short."""
        if not self._failures:
            return
        delay_s = self._rng.uniform(0.5, 1) * min(CAP_S, BASE_S * 2.0 ** min(self._failures, 32))
        if self._stopping.is_set():
            await asyncio.sleep(min(CAP_STOPPING_S, delay_s))
        else:
            await self._until_stopping(delay_s)

    async def _until_stopping(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # --- sweeping

    async def _sweep_often(self) -> None:
        while not self._stopping.is_set():
            await self._sweep()
            await self._until_stopping(self._rng.uniform(0.75, 1) * self._sweep_s)

    async def _sweep(self) -> None:
        try:
            count = await self._store.sweep(to_millisecond(datetime.now(UTC)))
        except StoreUnavailable:
            return  # the next sweep finds them, too
        except Exception:
            log.exception("sweep_failed")
            return
        if count:
            log.warning("claims_expired", extra={"count": count})
