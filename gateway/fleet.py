"""A worker's view of the fleet: it obeys the supervisor, says how it stands, and asks how the others do.

Takes the worker's end of the line; gives what all workers say together. A supervisor that is gone is an
order to stop.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import pickle
import socket
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from backends import StopReport

from .channel import Channel
from .errors import ServiceUnavailable
from .keys import FLEET, METRICS, WRITER
from .merging import exposition, snapshot
from .settings import Settings

COLLECT_S = 3.0
"""Longer than the supervisor waits for a worker that is silent."""
FAREWELL_S = 1.0


class Fleet:
    """Made by ``join``. ``serve`` attaches it to the application once signals are listened to."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ids = itertools.count()
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def join(cls, line: int) -> tuple[Self, Settings | None]:
        """Take over the file ``line``. The settings are None when the supervisor is gone already."""
        os.set_inheritable(line, False)
        channel = await Channel.open(socket.socket(fileno=line))
        first = await channel.first()
        if first is None:
            return cls(channel), None
        settings: Settings = pickle.loads(base64.b64decode(first["settings"]))
        return cls(channel), settings

    def attach(self, app: web.Application, obey: Callable[[int], None]) -> None:
        """From now on ``obey`` is called with the number of signals that the supervisor had, and with 1 when
        it is gone."""
        self._app = app
        app[FLEET] = self
        self._listening = asyncio.get_running_loop().create_task(self._listen(obey), name="supervisor")

    def ready(self) -> None:
        """This worker listens on the port."""
        self._channel.send(ready=True)

    async def _listen(self, obey: Callable[[int], None]) -> None:
        async for message in self._channel.messages():
            match message:
                case {"level": level}:
                    obey(level)
                case {"look": number}:
                    self._channel.send(seen=number, **self._view())
                case {"collected": number, **collected}:
                    if (answer := self._asked.get(number)) is not None and not answer.done():
                        answer.set_result(collected)
        obey(1)

    def _view(self) -> dict[str, Any]:
        metrics = snapshot(self._app[METRICS].registry.collect())
        return {"ledger": self._app[WRITER].stats().to_json(), "metrics": metrics}

    # --- all workers

    async def ledgers(self) -> list[dict[str, Any]]:
        """The ledger of each worker. Raises ``ServiceUnavailable``."""
        ledgers: list[dict[str, Any]] = (await self._collect())["ledgers"]
        return ledgers

    async def metrics(self) -> tuple[bytes, str]:
        """The metrics of all workers as text, and its content type. Raises ``ServiceUnavailable``: a part of
        the sum would look like counters that began anew."""
        return exposition((await self._collect())["metrics"]), CONTENT_TYPE_PLAIN_0_0_4

    async def _collect(self) -> dict[str, Any]:
        number = next(self._ids)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._channel.send(collect=number)
        try:
            await asyncio.wait({answer}, timeout=COLLECT_S)
        finally:
            del self._asked[number]
        if not answer.done():
            raise ServiceUnavailable("The supervisor of the workers does not answer.", "supervisor_silent")
        collected: dict[str, Any] = answer.result()
        return collected

    # --- the end

    async def leave(self, report: StopReport) -> None:
        """Hand over ``report`` and wait, not for long, until it was heard."""
        self._channel.send(report=report.to_json(), **self._view())
        if self._listening is not None:
            await asyncio.wait({self._listening}, timeout=FAREWELL_S)
            self._listening.cancel()
        self._channel.close()

    def leave_at_once(self, report: StopReport) -> None:
        """Hand over ``report`` in the last breath."""
        self._channel.send_at_once(report=report.to_json(), **self._view())
