"""A load generator that costs little: bytes made beforehand, over kept connections, without an HTTP client.

A closed loop keeps every connection busy, to see how many calls a server can do. An open loop sends at a
steady rate whatever the server does, to see how long a call takes that does not have to queue for its turn.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias, cast
from urllib.parse import urlsplit

WARM_UP_S = 0.3
LOOK_S = 0.01
ANSWER_S = 60.0
"""How long the last answers may take."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"

OnAnswer: TypeAlias = Callable[["Connection"], None]


class AnswerFailed(Exception):
    """A server did not answer 200, or hung up. The message has the beginning of what it said."""


def request_bytes(url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A POST of ``body`` to ``url``, as it goes over the wire."""
    parts = urlsplit(url)
    lines = {"Host": parts.netloc, "Content-Type": "application/json", **headers, "Content-Length": len(body)}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {parts.path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One call at a time: ``on_answer`` hears when the answer to ``send`` is whole. ``body`` is the answer's,
    of a chunked one only the end; ``reads`` counts how often the socket had something."""

    def __init__(self, on_answer: OnAnswer, on_failure: Callable[[AnswerFailed], None]) -> None:
        self._on_answer = on_answer
        self._on_failure = on_failure
        self._head = b""
        self._is_in_head = True
        self._left = 0
        self._is_chunked = False
        self.body = b""
        self.sent_at = 0.0
        self.is_idle = True
        self.reads = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes) -> None:
        self.is_idle = False
        self.sent_at = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        if not self._is_in_head:
            self._have(data)
            return
        head, found, body = (self._head + data).partition(b"\r\n\r\n")
        if not found:
            self._head = head
        elif head[9:12] != b"200":
            self._fail(f"{head[:200]!r} {body[:300]!r}")
        else:
            self._head, self._is_in_head = b"", False
            length = _LENGTH.search(head)
            self._is_chunked = length is None
            self._left = int(length[1]) if length else 0
            self.body = b"\r\n" if self._is_chunked else b""  # there may be nothing but the last chunk
            self._have(body)

    def _have(self, data: bytes) -> None:
        if self._is_chunked:
            self.body = self.body[-len(_LAST_CHUNK) :] + data
            is_whole = self.body.endswith(_LAST_CHUNK)
        else:
            self.body += data
            self._left -= len(data)
            is_whole = self._left <= 0
        if is_whole:
            self._is_in_head = self.is_idle = True
            self._on_answer(self)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_idle:
            self._fail(f"hung up: {error}")

    def _fail(self, what: str) -> None:
        self.is_idle = True
        self._on_failure(AnswerFailed(what))


class Load:
    """Connections to one server that send ``request`` again and again, or when told."""

    def __init__(self, url: str, request: bytes) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._request = request
        self._failure: AnswerFailed | None = None
        self._connections: list[Connection] = []
        self.answered = 0

    @asynccontextmanager
    async def connected(self, number: int, on_answer: OnAnswer) -> AsyncIterator[list[Connection]]:
        """``number`` connections, in groups that a listen queue can hold. They are waited for in the end."""
        try:
            for _ in range(number):
                await self.connect(on_answer)
            yield self._connections
            await self._idle()
        finally:
            for each in self._connections:
                each.is_idle = True
                each.transport.abort()
            self._connections = []

    async def connect(self, on_answer: OnAnswer) -> Connection:
        """One more connection."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(
            lambda: Connection(on_answer, self._fail), self._host, self._port
        )
        self._connections.append(made)
        return made

    @asynccontextmanager
    async def closed_loop(self, connections: int) -> AsyncIterator[None]:
        """Inside, each of ``connections`` sends its next call as soon as it has the answer to the last."""
        is_over = False

        def again(connection: Connection) -> None:
            self.answered += 1
            if not is_over:
                connection.send(self._request)

        async with self.connected(connections, again) as made:
            for each in made:
                each.send(self._request)
            await asyncio.sleep(WARM_UP_S)
            yield
            is_over = True

    async def some(self, connections: int, each: int) -> None:
        """``each`` calls over each of ``connections``, one after the other; returns when all are answered."""
        left = connections * (each - 1)

        def again(connection: Connection) -> None:
            nonlocal left
            self.answered += 1
            if left > 0:
                left -= 1
                connection.send(self._request)

        async with self.connected(connections, again) as made:
            for connection in made:
                connection.send(self._request)

    async def open_loop(self, rate: int, seconds: float, idle: int) -> list[tuple[float, bytes]]:
        """Seconds and body of each of ``rate`` calls a second, sent whether or not earlier ones are done."""
        answers: list[tuple[float, bytes]] = []
        free: deque[Connection] = deque()

        def done(connection: Connection) -> None:
            answers.append((time.perf_counter() - connection.sent_at, connection.body))
            free.append(connection)

        async with self.connected(idle, done) as made:
            free.extend(made)
            began = time.perf_counter()
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
                (free.popleft() if free else await self.connect(done)).send(self._request)
                self.check()
        return answers

    @property
    def reads(self) -> int:
        """How often any connection had something to read."""
        return sum(each.reads for each in self._connections)

    def check(self) -> None:
        """Raises ``AnswerFailed`` when any call failed so far."""
        if self._failure is not None:
            raise self._failure

    async def _idle(self) -> None:
        deadline = time.perf_counter() + ANSWER_S
        while not all(each.is_idle for each in self._connections):  # looked at: it must cost a call nothing
            self.check()
            if time.perf_counter() > deadline:
                raise AnswerFailed(f"not answered within {ANSWER_S:g} s")
            await asyncio.sleep(LOOK_S)
        self.check()

    def _fail(self, failure: AnswerFailed) -> None:
        self._failure = self._failure or failure
