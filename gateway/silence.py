"""Notices that a stream's provider is silent, with one timer for all the waits of that stream.

``asyncio.timeout`` sets a timer for each wait and takes it back, which costs more CPU than all else that is
done for an event. Here a wait only notes when it began; the timer looks at that when it is due.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class StillSilent(Exception):
    """The wait has lasted as long as it may. What was waited for is not lost: it may be waited for again."""


class Silence:
    """A guard for the waits of the task that made it, one at a time and any number of them: what runs inside
    ends with ``StillSilent`` once it has taken ``limit_s`` seconds; with None it never does."""

    def __init__(self, limit_s: float | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._limit_s = limit_s
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancels = 0
        self._is_over = False

    def __enter__(self) -> None:
        if self._limit_s is not None:
            self._since = self._loop.time()
            self._cancels = self._task.cancelling()
            if self._timer is None:
                self._timer = self._loop.call_at(self._since + self._limit_s, self._look)

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._since = None
        if self._is_over:
            self._is_over = False
            # As in asyncio.timeout: somebody else's cancel in the same moment stays a cancel.
            if self._task.uncancel() <= self._cancels and error_type is asyncio.CancelledError:
                raise StillSilent from None

    def close(self) -> None:
        """Take the timer back; not while somebody waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._since is None or self._limit_s is None:
            return  # the next wait sets it again
        due = self._since + self._limit_s
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
        else:
            self._is_over = True
            self._task.cancel()
