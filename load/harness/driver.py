"""Calls at a steady rate, whatever becomes of them: streams and not, and clients that hang up.

An open loop: a call is sent when it is due, not when another was answered, so a gateway that stalls meets all
the calls that come meanwhile, and their latency counts from the moment that they were due.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any, TextIO

import aiohttp

from harness.calls import Call, Kind

CALL_S = 60.0
CLOSING_S = 90.0
MIX: tuple[Kind, ...] = ("plain", "stream", "plain", "stream", "leave")
BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)


class Driver:
    """``urls`` may change at any time: calls go to each in turn. A call is in ``calls`` from when it is sent,
    and has its line in ``file`` once it ended."""

    def __init__(
        self, scenario: str, urls: Sequence[str], key: str, rate: float, seed: int, file: TextIO
    ) -> None:
        self.calls: list[Call] = []
        self._scenario = scenario
        self._urls = urls
        self._headers = {"Authorization": f"Bearer {key}"}
        self._interval_s = 1 / rate
        self._rng = Random(f"{seed} {scenario}")
        self._file = file
        self._is_ending = False

    @property
    def running(self) -> list[Call]:
        """The calls under way."""
        return [call for call in self.calls if call.outcome == "waiting"]

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """While it lasts, calls are sent; afterwards each has ended. Raises ``TimeoutError``."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        async with aiohttp.ClientSession(
            headers=self._headers, connector=connector, timeout=timeout
        ) as session:
            async with asyncio.TaskGroup() as calls:
                sending = calls.create_task(
                    self._send(lambda call: calls.create_task(self._make(session, call)))
                )
                try:
                    yield
                finally:
                    self._is_ending = True
                    await asyncio.wait({sending}, timeout=CLOSING_S)

    async def _send(self, begin: Callable[[Call], Any]) -> None:
        began, wall_ms = time.monotonic(), time.time() * 1000
        number = 0
        while not self._is_ending:
            due_s = number * self._interval_s
            await asyncio.sleep(max(0.0, began + due_s - time.monotonic()))
            call = Call(self._scenario, f"{self._scenario}-{number}", MIX[number % len(MIX)])
            call.due_ms = wall_ms + due_s * 1000
            self.calls.append(call)
            begin(call)
            number += 1

    async def _make(self, session: aiohttp.ClientSession, call: Call) -> None:
        try:
            await self._ask(session, call)
        except BROKEN:
            call.outcome = "broken" if call.status else "unreached"
        call.done_ms = time.time() * 1000
        call.write_to(self._file)

    async def _ask(self, session: aiohttp.ClientSession, call: Call) -> None:
        url = self._urls[len(self.calls) % len(self._urls)]
        headers = {"x-request-id": call.request_id}
        call.sent_ms = time.time() * 1000
        async with session.post(
            f"{url}/v1/chat/completions", json=self._body(call), headers=headers
        ) as answer:
            call.status, call.promised = answer.status, answer.headers.get("x-usage-id")
            if call.kind != "plain" and answer.ok:
                head = await answer.content.readany()
                call.first_ms = time.time() * 1000
                if call.kind == "leave":
                    answer.close()
                    call.outcome = "left"
                    return
                _judge(call, head + await answer.read())
            else:
                _judge(call, await answer.read())

    def _body(self, call: Call) -> dict[str, Any]:
        """Counts that tell calls apart."""
        return {
            "model": "local:fake",
            "messages": [{"role": "user", "content": "word " * self._rng.randrange(1, 40)}],
            "max_tokens": self._rng.randrange(1, 30),
            "stream": call.kind != "plain",
        }


def _judge(call: Call, body: bytes) -> None:
    is_whole = call.kind == "plain" or body.rstrip().endswith(b"data: [DONE]")
    if call.status == 200 and is_whole:
        call.outcome = "answered"
        return
    call.outcome = "broken" if call.promised else "refused"
    call.code = error_code(body)


def error_code(body: bytes) -> str | None:
    """Of an error's body, or of the event that ends a stream with one; None where it has no name."""
    last = body.rstrip().rpartition(b"data: ")[2]
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(last)["error"]["code"])
    return None
