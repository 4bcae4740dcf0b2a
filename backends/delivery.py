"""The waiting half of the core: asks for jobs, carries each to the sink, brings the answer back.

Owns tasks, never rows: while a task runs, its rows are in flight in the ledger, and whatever becomes of the
task, its end is settled in a synchronous callback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from .batching import BatchingOptions
from .dispatch import Dispatcher
from .errors import SinkBatchRejected, SinkFatal, SinkRetryable, SinkRowsRejected
from .job import Job
from .pulse import Pulse
from .reports import WriterObserver
from .sink import Committed, LogSink

log = logging.getLogger("backends.delivery")


@dataclass(slots=True)
class Flight:
    """One attempt under way. ``began_at`` is loop time in seconds."""

    job: Job
    began_at: float
    is_overdue: bool = False


class Delivery:
    """One collector task and at most ``flush_concurrency`` attempts at a time.

    ``on_death(is_cancelled)`` is called when the collector has ended for good without being told to.
    """

    def __init__(
        self,
        sink: LogSink,
        sink_name: str,
        dispatcher: Dispatcher,
        options: BatchingOptions,
        pulse: Pulse,
        observer: WriterObserver,
        on_death: Callable[[bool], None],
    ) -> None:
        self._sink = sink
        self._sink_name = sink_name
        self._dispatcher = dispatcher
        self._options = options
        self._pulse = pulse
        self._observer = observer
        self._on_death = on_death
        self._flights: set[asyncio.Task[Committed | None]] = set()
        self._collector: asyncio.Task[None] | None = None
        self._restarts = 0

    @property
    def has_slot(self) -> bool:
        """Whether one more attempt may begin."""
        return len(self._flights) < self._options.flush_concurrency

    def start(self) -> None:
        """Begin to collect. Call once, inside the loop."""
        self._collector = asyncio.get_running_loop().create_task(self._collect(), name="log-writer collector")
        self._collector.add_done_callback(self._collector_ended)

    async def land(self, grace_s: float) -> None:
        """End what is under way within ``grace_s`` seconds: ask by cancelling, then have the sink abort."""
        self._dispatcher.halt()
        for task in self._flights:
            task.cancel()
        await self._landed_within(grace_s / 2)
        if self._flights:
            self.abort()
            await self._landed_within(grace_s / 2)

    def abort(self) -> None:
        """End every call of the sink, without waiting."""
        try:
            self._sink.abort()
        except Exception:
            log.exception("sink_abort_failed")

    def end(self) -> None:
        """Let the collector go; the dispatcher has been closed."""
        self._pulse.beat()
        for task in self._flights:
            task.cancel()

    # --- collecting

    async def _collect(self) -> None:
        while not self._dispatcher.is_closed:
            self._launch_due()
            await self._pulse.wait_until(self._dispatcher.wake_at() if self.has_slot else None)

    def _launch_due(self) -> None:
        now = asyncio.get_running_loop().time()
        while self.has_slot and (job := self._dispatcher.next(now)):
            self._launch(job, now)

    def _collector_ended(self, task: asyncio.Task[None]) -> None:
        if self._dispatcher.is_closed:
            return None if task.cancelled() else _retrieve(task)
        if task.cancelled():  # the loop is being torn down around us
            return self._on_death(True)
        log.error("collector_died", exc_info=task.exception())
        if self._restarts:
            return self._on_death(False)
        self._restarts += 1
        self.start()

    # --- attempts

    def _launch(self, job: Job, now: float) -> None:
        flight = Flight(job, now)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._send(job), name="log-writer flush")
        timer = loop.call_later(self._options.attempt_timeout_s, self._time_out, flight, task)
        self._flights.add(task)
        task.add_done_callback(lambda task: self._land(flight, task, timer))

    async def _send(self, job: Job) -> Committed | None:
        if job.batch is not None:
            return await self._sink.write(job.batch)
        await self._sink.ping()
        return None

    def _time_out(self, flight: Flight, task: asyncio.Task[Committed | None]) -> None:
        # Only asks: the batch stays in flight until the task has ended, so that no second attempt runs
        # beside the first. A sink that ignores it keeps its slot, and readiness shows the batch overdue.
        flight.is_overdue = True
        task.cancel()

    def _land(self, flight: Flight, task: asyncio.Task[Committed | None], timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._flights.discard(task)
        outcome = _outcome(flight, task)
        now = task.get_loop().time()
        try:
            self._dispatcher.settle(flight.job, outcome, now)
        except Exception:
            log.exception("settle_failed")
            self._dispatcher.keep(flight.job, now)
        self._observer.flushed(self._sink_name, _word(outcome), flight.job.rows, now - flight.began_at)
        self._pulse.beat()

    async def _landed_within(self, seconds: float) -> None:
        if self._flights:
            # Each task's first callback settles it, so those that are done here are settled too.
            await asyncio.wait(set(self._flights), timeout=seconds)


def _outcome(flight: Flight, task: asyncio.Task[Committed | None]) -> object:
    if task.cancelled():
        return TimeoutError() if flight.is_overdue else asyncio.CancelledError()
    return task.exception() or task.result()


def _word(outcome: object) -> str:
    if isinstance(outcome, asyncio.CancelledError):
        return "cancelled"
    if isinstance(outcome, TimeoutError):
        return "timeout"
    if isinstance(outcome, SinkFatal):
        return "fatal"
    if isinstance(outcome, (SinkRowsRejected, SinkBatchRejected)):
        return "rejected"
    if isinstance(outcome, (SinkRetryable, BaseException)):
        return "retryable"
    return "ok"


def _retrieve(task: asyncio.Task[None]) -> None:
    task.exception()
