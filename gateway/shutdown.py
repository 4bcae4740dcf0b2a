"""The end of a process as arithmetic: which step may take until when, and what a second signal means.

Takes the configured times; gives each step its deadline. Time that a step does not use rolls on to the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from .settings import ShutdownSettings

log = logging.getLogger("gateway.shutdown")

Step: TypeAlias = Literal["readiness_delay", "drain", "pump", "stop"]


class Shutdown:
    """One stop, or the end of a start that failed. ``hurry`` is set by the second signal."""

    def __init__(self, settings: ShutdownSettings) -> None:
        self._settings = settings
        self._began_at: float | None = None
        self._is_told = False
        self.hurry = asyncio.Event()

    def begin(self) -> None:
        """A stop was asked for: the clock starts, and the log tells of each step. May be repeated."""
        self._is_told = True
        self._start_clock()

    def left_s(self, step: Step) -> float:
        """Seconds from now until ``step`` has to be over, unused time of earlier steps included."""
        return max(0.0, self._start_clock() + self._budget_s(step) - asyncio.get_running_loop().time())

    def _start_clock(self) -> float:
        if self._began_at is None:
            self._began_at = asyncio.get_running_loop().time()
        return self._began_at

    def _budget_s(self, step: Step) -> float:
        times = self._settings
        budgets: dict[Step, float] = {
            "readiness_delay": times.readiness_delay_s,
            "drain": times.drain_s,
            "pump": times.pump_s,
            "stop": times.stop_deadline_s,
        }
        steps = list(budgets)
        return sum(budgets[each] for each in steps[: steps.index(step) + 1])

    async def spend(self, step: Step, work: Callable[[float], Awaitable[object]], **facts: int) -> None:
        """One step, with a line in the log: ``work`` gets the seconds it may take and is bounded by itself.
        Returns when it is done or when the second signal comes, which leaves later steps no time at all.
        """
        left_s = 0.0 if self.hurry.is_set() else self.left_s(step)
        if self._is_told:
            log.info("stopping", extra={"step": step, "left_s": round(left_s, 3), **facts})
        doing = asyncio.ensure_future(work(left_s))
        hurrying = asyncio.ensure_future(self.hurry.wait())
        await asyncio.wait({doing, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if doing.done():
            doing.result()
        doing.cancel()
