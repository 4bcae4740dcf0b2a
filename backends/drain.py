"""The way out: what is left goes to the sink until the deadline, then to the disk within the grace after it.

Takes what the rooms of one writer still hold when the intake has closed; gives how the end came. What neither
took is accounted for when the writer closes, in one step.
"""

from __future__ import annotations

import asyncio

from .batching import BatchingOptions
from .boots import BootRegister
from .delivery import Delivery
from .dispatch import Dispatcher
from .ledger import Ledger
from .pulse import Pulse
from .reports import StopOutcome
from .spool import Spool
from .spool.traffic import SpoolTraffic


class Drain:
    """One writer's. ``grace_s``: how long after ``stop_by`` it may take in seconds."""

    def __init__(
        self,
        ledger: Ledger,
        dispatcher: Dispatcher,
        delivery: Delivery,
        spool: Spool | None,
        traffic: SpoolTraffic | None,
        boots: BootRegister,
        options: BatchingOptions,
        pulse: Pulse,
        grace_s: float,
    ) -> None:
        self.stop_by = 0.0
        """Loop time; a second stop may bring it forward while the drain runs."""
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._delivery = delivery
        self._spool = spool
        self._traffic = traffic
        self._boots = boots
        self._options = options
        self._pulse = pulse
        self._grace_s = grace_s

    async def run(self) -> StopOutcome:
        """Deliver the rest. A cancel loses nothing: each row stays whose it was."""
        await self._deliver()
        outcome = self._outcome()
        if outcome != "drained":
            await self._delivery.land(self._grace_s)
            await self._spill()
        if self._ledger.is_empty:
            await self._boots.close(
                self._ledger.last_seq, min(self._grace_s, max(0.0, self._end_by - _now()))
            )
        return outcome

    def account(self) -> None:
        """Every row that is still ours: on the disk from now on, else given up. May be repeated, for rows
        that come after the close."""
        if self._spool is not None and not self._ledger.is_bare:
            self._ledger.launch_queue(self._options.max_rows, self._options.max_bytes)
            flying = self._ledger.flying()
            for batch in self._spool.keep_now([each for each in flying if self._ledger.home(each) is None]):
                self._ledger.spool(batch)
        self._ledger.go_home_all()
        self._ledger.abandon_all()

    async def _deliver(self) -> None:
        health = self._dispatcher.health
        while not (self._ledger.is_empty or health.is_hopeless) and _now() < self.stop_by:
            await self._pulse.wait_until(self.stop_by)

    def _outcome(self) -> StopOutcome:
        if self._ledger.is_empty:
            return "drained"
        return "sink_down" if self._dispatcher.health.is_hopeless else "deadline"

    async def _spill(self) -> None:
        """With a disk, what the sink did not take goes there while there is time to wait for it."""
        while self._traffic is not None and self._traffic.has_more and _now() < self._end_by:
            await self._pulse.wait_until(self._end_by)

    @property
    def _end_by(self) -> float:
        return self.stop_by + self._grace_s


def _now() -> float:
    return asyncio.get_running_loop().time()
