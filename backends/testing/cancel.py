"""Cancels a task at every point where it can be cancelled, one run of a scenario for each.

Takes a scenario that starts a task and checks, whatever became of it, that nothing was lost; gives the number
of points. What a test with one well-chosen moment misses, a sweep over all moments finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from .clock import VirtualClockLoop

MAX_STEPS = 5000


class CancelPoint:
    """Where this run cancels: before round ``step`` of the event loop, counted from ``aim`` on."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.is_hit = False
        self.is_aimed = False

    def aim(self, task: asyncio.Task[Any]) -> None:
        """Choose the task; to be called once, from the scenario, on the loop that runs it."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualClockLoop) or self.is_aimed:
            raise RuntimeError("aim() is for one task, in a scenario that cancel_at_every_step runs")
        self.is_aimed = True
        rounds = 0

        def on_step() -> bool:
            nonlocal rounds
            rounds += 1
            if rounds <= self.step:
                return False
            loop.on_step = None
            self.is_hit = task.cancel()
            return self.is_hit

        loop.on_step = on_step


Scenario: TypeAlias = Callable[[CancelPoint], Coroutine[Any, Any, None]]


def cancel_at_every_step(scenario: Scenario, *, max_steps: int = MAX_STEPS) -> int:
    """Run ``scenario`` on a virtual clock once for each step k = 0, 1, 2 ..., its task cancelled at k, until
    the task ends by itself before that; gives the number of runs in which it was cancelled.

    An assertion that fails in one of the runs says at which step. To be called where no event loop runs.
    """
    for step in range(max_steps):
        point = CancelPoint(step)
        _run(scenario, point)
        if not point.is_aimed:
            raise RuntimeError("the scenario did not aim() at a task")
        if not point.is_hit:
            return step
    raise RuntimeError(f"the task was still running after {max_steps} steps; give max_steps if that is right")


def _run(scenario: Scenario, point: CancelPoint) -> None:
    try:
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(scenario(point))
    except BaseException as error:
        error.add_note(f"the task was cancelled at step {point.step}")
        raise
