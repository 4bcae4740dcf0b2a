"""A few hundred calls, streamed and not, and what became of each, as its client saw it.

Takes a session whose base URL is a gateway; gives the calls. Knows nothing of rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp
from tally import Call, Kind, Outcome

MODEL = "local:fake"
PROGRESS_CALLS = 70


@dataclass
class Traffic:
    """``total`` calls by ``clients`` at once; ``stop`` is called in the middle, when ``stop_after`` ended.

    ``interrupted`` are the calls that ran at that moment, ``failed_early`` those that had failed by then.
    """

    session: aiohttp.ClientSession
    stop: Callable[[], None]
    total: int
    stop_after: int
    clients: int
    calls: list[Call] = field(default_factory=list)
    interrupted: list[Call] = field(default_factory=list)
    failed_early: list[Call] = field(default_factory=list)
    ended: int = 0

    async def run(self) -> None:
        numbers = iter(range(self.total))
        async with asyncio.TaskGroup() as clients:
            for _ in range(self.clients):
                clients.create_task(self._client(numbers))

    async def _client(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            call = Call(request_id=f"demo-{number:04}", kind=kind_of(number))
            self.calls.append(call)
            try:
                await self._make(call)
            except (aiohttp.ClientError, TimeoutError):
                call.outcome = "broken" if call.promised else "unreached"
            self._end()

    async def _make(self, call: Call) -> None:
        path, body = request_of(call)
        async with self.session.post(path, json=body, headers={"x-request-id": call.request_id}) as response:
            if text := response.headers.get("x-usage-id"):
                call.promised = UUID(text)
            if call.kind == "leave" and response.ok:
                await response.content.readany()
                response.close()
                call.outcome = "left"
            else:
                call.outcome = judge(call, response.ok, await response.read())

    def _end(self) -> None:
        self.ended += 1
        if self.ended == self.stop_after:
            self.interrupted = [call for call in self.calls if call.outcome == "waiting"]
            self.failed_early = [
                call for call in self.calls if call.outcome in ("refused", "broken", "unreached")
            ]
            print(f"SIGTERM, with {len(self.interrupted)} calls running ...", flush=True)
            self.stop()
        elif self.ended % PROGRESS_CALLS == 0:
            print(f"  {self.ended} of {self.total} calls ended", flush=True)


def kind_of(number: int) -> Kind:
    """Half of the calls are streams; the clients of a few of them hang up in the middle."""
    kinds: tuple[Kind, ...] = ("stream", "chat", "stream", "embedding")
    return "leave" if number % 20 == 6 else kinds[number % 4]


def request_of(call: Call) -> tuple[str, dict[str, Any]]:
    """The path and the body of ``call``."""
    asked = {"model": MODEL}
    if call.kind == "embedding":
        return "/v1/embeddings", {**asked, "input": "How many rows?"}
    messages = [{"role": "user", "content": "How many rows?"}]
    is_streamed = call.kind in ("stream", "leave")
    return "/v1/chat/completions", {**asked, "messages": messages, "stream": is_streamed}


def judge(call: Call, is_ok: bool, body: bytes) -> Outcome:
    """What became of a call whose answer was read to its end."""
    if not is_ok:
        return "broken" if call.promised else "refused"
    is_whole = call.kind != "stream" or body.rstrip().endswith(b"data: [DONE]")
    return "answered" if is_whole else "broken"
