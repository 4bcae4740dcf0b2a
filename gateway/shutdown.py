"""The end of a process as arithmetic: which step may take until when, and what a second signal means.

Takes the configured times; gives each step its deadline. Time that a step does not use rolls on to the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Literal, TypeAlias

from .settings import ShutdownSettings

Step: TypeAlias = Literal["readiness_delay", "drain", "pump", "stop"]


class Shutdown:
    """One stop. Nothing has begun until ``begin``; ``hurry`` is set by the second signal."""

    def __init__(self, settings: ShutdownSettings) -> None:
        self._settings = settings
        self._began_at: float | None = None
        self.hurry = asyncio.Event()

    def begin(self) -> None:
        """The clock starts. May be called again: only the first call counts."""
        if self._began_at is None:
            self._began_at = asyncio.get_running_loop().time()

    def left_s(self, step: Step) -> float:
        """Seconds from now until ``step`` has to be over, unused time of earlier steps included."""
        self.begin()
        assert self._began_at is not None
        return max(0.0, self._began_at + self._budget_s(step) - asyncio.get_running_loop().time())

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

    async def wait(self, work: Awaitable[object]) -> None:
        """Until ``work`` (bounded by itself) is done, or the second signal comes. Leaves no task behind that
        does anything but wait."""
        doing = asyncio.ensure_future(work)
        hurrying = asyncio.ensure_future(self.hurry.wait())
        await asyncio.wait({doing, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if doing.done():
            doing.result()
        doing.cancel()
