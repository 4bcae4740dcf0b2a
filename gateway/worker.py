"""The supervisor's hold on one worker: a fresh process of the same command, and the line to it.

Takes settings, which the worker is told and does not read again, so that a restarted one serves by the same;
gives what the worker says. The worker has a session of its own: Ctrl-C reaches the supervisor alone.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from .channel import Channel
from .merging import Snapshot
from .settings import Settings

WORKER_VARIABLE = "TALLYGATE_WORKER"
"""In the environment of a worker, and nowhere else: the number of the file that is its end of the line."""
LOOK_S = 1.0
LAST_WORDS_S = 1.0
"""What a process said before it died is there already; somebody it started may hold the line open."""


class Worker:
    """One process, from its start to its end. ``number`` is its place among the workers, from 1."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.number = number
        self.is_ready = False
        self.boot_id: str | None = None
        self.metrics: Snapshot = []
        self.report: dict[str, Any] | None = None
        self._process = process
        self._channel = channel
        self._ids = itertools.count()
        self._looks: dict[int, asyncio.Future[dict[str, Any]]] = {}

    @classmethod
    async def start(cls, number: int, settings: Settings) -> Self:
        """A new process. Raises ``OSError``: the system gives none."""
        ours, theirs = socket.socketpair()
        try:
            process = await _spawn(theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        channel = await Channel.open(ours)
        channel.send(settings=base64.b64encode(pickle.dumps(settings)).decode())
        return cls(number, process, channel)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def order(self, level: int) -> None:
        """As so many signals. Not sent as signals: one that comes before the worker listens would kill it,
        and a service manager that signals every process would have them counted twice."""
        self._channel.send(level=level)

    def kill(self) -> None:
        """The end, without a report."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    async def look(self) -> dict[str, Any] | None:
        """How the worker stands now: its ``ledger`` and ``metrics``. None: it does not say so in time."""
        if not self.is_ready:
            return None
        number = next(self._ids)
        answer = self._looks[number] = asyncio.get_running_loop().create_future()
        self._channel.send(look=number)
        await asyncio.wait({answer}, timeout=LOOK_S)
        del self._looks[number]
        return answer.result() if answer.done() else None

    async def live(self, on_ready: Callable[[Self], None], on_collect: Callable[[Self, int], None]) -> int:
        """Listen to the worker until it is gone; its exit status, negative for a signal."""
        listening = asyncio.ensure_future(self._listen(on_ready, on_collect))
        status = await self._process.wait()
        await asyncio.wait({listening}, timeout=LAST_WORDS_S)
        listening.cancel()
        self._channel.close()
        self.is_ready = False
        return status

    async def _listen(
        self, on_ready: Callable[[Self], None], on_collect: Callable[[Self, int], None]
    ) -> None:
        async for message in self._channel.messages():
            match message:
                case {"ready": _}:
                    self.is_ready = True
                    on_ready(self)
                case {"collect": number}:
                    on_collect(self, number)
                case {"seen": number, **view}:
                    self._learn(view)
                    if (answer := self._looks.get(number)) is not None and not answer.done():
                        answer.set_result(view)
                case {"report": report, **view}:
                    self._learn(view)
                    self.report = report
                    self._channel.close()  # which tells the worker that it was heard

    def _learn(self, view: dict[str, Any]) -> None:
        self.boot_id = view["ledger"]["boot_id"]
        self.metrics = view["metrics"]

    def answer(self, number: int, **collected: Any) -> None:
        """What this worker asked for in ``collect``."""
        self._channel.send(collected=number, **collected)


async def _spawn(line: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *sys.orig_argv[1:]),
        env={**os.environ, WORKER_VARIABLE: str(line)},
        pass_fds=(line,),
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
