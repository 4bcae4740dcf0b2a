"""Several workers under one small process that serves nothing itself: it holds the port and keeps them alive.

Takes settings with more than one worker; gives one ``listening`` line, one summed report and the exit status.
The workers bind the port themselves (SO_REUSEPORT), so the kernel deals connections out among them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Sequence

from .census import Census
from .merging import total
from .port import held
from .serve import SIGNALS, url_of
from .settings import Settings
from .worker import Worker

log = logging.getLogger("gateway.supervisor")

HEALTHY_S = 30.0
"""A worker that lived so long did not die of how it was started."""
RESTART_S = 0.1
MAX_RESTART_S = 30.0
KILL_S = 2.0
"""How long workers may take to end once they were told to end at once."""
HARMLESS = (0, 3)


async def supervise(settings: Settings) -> int:
    """Serve with ``settings.workers`` processes until a signal; the exit status as the contract has it.
    Raises ``OSError``: the port is taken."""
    with held(settings.host, settings.port) as port:
        supervisor = Supervisor(settings.model_copy(update={"port": port}))
        return await supervisor.run()


class Supervisor:
    """The workers by number, what has become of them, and what was asked of us. Runs once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._census = Census(settings.workers)
        self._workers: dict[int, Worker] = {}
        self._ended: list[tuple[Worker, int]] = []
        """Those that ran when the stop began, each with its exit status."""
        self._restarts = 0
        self._level = 0
        self._stopping = asyncio.Event()
        self._began_at = 0.0
        self._is_listening = False
        self._has_failed = False
        self._answers: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Until every worker has ended. Signals that come later are ignored."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._arrived, number)
        async with asyncio.TaskGroup() as keeping:
            for place in range(1, self._settings.workers + 1):
                keeping.create_task(self._keep(place), name=f"worker {place}")
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        status = 1 if self._has_failed else exit_status([status for _, status in self._ended])
        self._report(status)
        return status

    # --- keeping a worker

    async def _keep(self, number: int) -> None:
        """One place: a worker, and after it the next, until we are asked to stop."""
        short_lives = 0
        while not self._stopping.is_set():
            began_at = asyncio.get_running_loop().time()
            await self._live_and_die(number)
            lived_s = asyncio.get_running_loop().time() - began_at
            short_lives = 0 if lived_s >= HEALTHY_S else short_lives + 1
            await self._pause(min(MAX_RESTART_S, RESTART_S * 2**short_lives))

    async def _live_and_die(self, number: int) -> None:
        try:
            worker = await Worker.start(number, self._settings)
        except OSError:
            log.exception("worker_not_started", extra={"worker": number})
            return self._fail_unless_listening()
        log.info("worker_started", extra={"worker": number, "pid": worker.pid})
        self._workers[number] = worker
        if self._level:
            worker.order(self._level)
        status = await worker.live(self._on_ready, self._on_collect)
        del self._workers[number]
        self._census.bury(worker)
        is_expected = self._stopping.is_set() and status in HARMLESS
        log.log(
            logging.INFO if is_expected else logging.ERROR,
            "worker_ended",
            extra={"worker": number, "pid": worker.pid, "exit_status": status},
        )
        if self._stopping.is_set():
            self._ended.append((worker, status))
        else:
            self._restarts += self._is_listening
            self._fail_unless_listening()

    def _fail_unless_listening(self) -> None:
        """What does not even start once is better said to whoever started us than tried again and again."""
        if not self._is_listening and not self._stopping.is_set():
            self._has_failed = True
            self._stop(1)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    # --- what workers say

    def _on_ready(self, worker: Worker) -> None:
        log.info("worker_ready", extra={"worker": worker.number, "pid": worker.pid})
        ready = sum(each.is_ready for each in self._workers.values())
        if ready == self._settings.workers and not self._is_listening and not self._stopping.is_set():
            self._is_listening = True
            url = url_of(self._settings.host, self._settings.port)
            log.info("listening", extra={"url": url, "pid": os.getpid(), "workers": ready})

    def _on_collect(self, worker: Worker, number: int) -> None:
        task = asyncio.ensure_future(self._collect(worker, number))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _collect(self, worker: Worker, number: int) -> None:
        worker.answer(number, **await self._census.take(self._workers, self._restarts))

    # --- stopping

    def _arrived(self, number: signal.Signals) -> None:
        log.info("signal", extra={"signal": signal.Signals(number).name, "count": self._level + 1})
        self._stop(self._level + 1)

    def _stop(self, level: int) -> None:
        loop = asyncio.get_running_loop()
        self._level = level
        if level == 1:
            self._began_at = loop.time()
            loop.call_later(self._settings.shutdown.grace_s, self._kill)
        self._stopping.set()
        for worker in self._workers.values():
            worker.order(level)
        if level == 3:
            loop.call_later(KILL_S, self._kill)

    def _kill(self) -> None:
        for worker in self._workers.values():
            log.error("worker_killed", extra={"worker": worker.number, "pid": worker.pid})
            worker.kill()

    def _report(self, status: int) -> None:
        reports = [worker.report for worker, _ in self._ended if worker.report is not None]
        is_clean = status == 0 and len(reports) == len(self._ended) and all(each["clean"] for each in reports)
        summed = {
            **total(reports),
            "duration_s": round(asyncio.get_running_loop().time() - self._began_at, 3),
            "clean": is_clean,
            "workers": len(self._ended),
            "worker_restarts": self._restarts,
        }
        log.info("shutdown_report", extra=summed)


def exit_status(statuses: Sequence[int]) -> int:
    """Of all workers, from those of each that ran when the stop began."""
    if any(each not in HARMLESS for each in statuses):
        return 1
    return max(statuses, default=0)
