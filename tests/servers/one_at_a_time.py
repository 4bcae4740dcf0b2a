"""One command at a time: a proxy that gives an imitation of MongoDB the one promise that it does not keep.

A ``mongod`` changes a document in one step, whoever else asks at the same time. FerretDB reads it, decides,
and writes it, so that of fifty conditional updates with room for ten far more go through. Behind this proxy
every command waits for the answer to the one before, on whatever connection that was: what the store asks is
what it would ask a ``mongod``, and only the server's own weakness is out of the test. So it shows that the
store asks for the right thing in one command, and nothing of how commands meet within a server; that a real
``mongod`` shows, which the tests talk to directly.

Runs in the test's own event loop. Greetings and pings, by which drivers look after their server, do not wait,
and neither do messages without an answer. Knows the outside of MongoDB's messages, no more.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self

from .listener import Listener

_HEAD_BYTES = 16
_MSG = 2013
_MORE_TO_COME = 1 << 1
_FREE = frozenset({b"hello", b"isMaster", b"ismaster", b"ping"})


class OneAtATime:
    """``async with OneAtATime(server_port) as turns``; drivers connect to ``turns.port``."""

    def __init__(self, server_port: int, server_host: str = "127.0.0.1") -> None:
        self.server = (server_host, server_port)
        self.port = 0
        self._turn = asyncio.Lock()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = Listener(self._serve, self._serving)
        self.port = self._listener.port
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._listener.close()
        await asyncio.sleep(0)  # a task that is cancelled before its first step would close nothing
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                server_reader, server_writer = await asyncio.open_connection(*self.server)
                ends.append(server_writer)
                await _Link(self._turn, reader, writer, server_reader, server_writer).run()
        except asyncio.CancelledError:
            pass  # by us, who leave; a task of a server that ends so would be told of
        finally:
            for end in ends:
                end.transport.abort()


class _Link:
    """One connection. Whoever has the turn keeps it until the server has answered, even if the client has
    gone: the server is still at work."""

    def __init__(
        self,
        turn: asyncio.Lock,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._turn = turn
        self._client = (reader, writer)
        self._server = (server_reader, server_writer)
        self._has_turn = False
        self._answered = asyncio.Event()
        self._answered.set()

    async def run(self) -> None:
        answers = asyncio.ensure_future(self._pass_answers())
        requests = asyncio.ensure_future(self._pass_requests())
        try:
            await asyncio.wait({answers, requests}, return_when=asyncio.FIRST_COMPLETED)
            if not answers.done():
                waiting = asyncio.ensure_future(self._answered.wait())
                await asyncio.wait({answers, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        finally:
            answers.cancel()
            requests.cancel()
            await asyncio.wait({answers, requests})
            self._end_turn()

    async def _pass_requests(self) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                message = await _message(self._client[0])
                if _wants_turn(message):
                    await self._turn.acquire()
                    self._has_turn = True
                    self._answered.clear()
                self._server[1].write(message)
                await self._server[1].drain()

    async def _pass_answers(self) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                message = await _message(self._server[0])
                if not _has_more_to_come(message):
                    self._end_turn()
                with suppress(OSError):  # the client has gone
                    self._client[1].write(message)
                    await self._client[1].drain()

    def _end_turn(self) -> None:
        self._answered.set()
        if self._has_turn:
            self._has_turn = False
            self._turn.release()


async def _message(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "little") - 4)


def _wants_turn(message: bytes) -> bool:
    return _is_command(message) and not _has_more_to_come(message) and _name(message) not in _FREE


def _has_more_to_come(message: bytes) -> bool:
    flags = int.from_bytes(message[_HEAD_BYTES : _HEAD_BYTES + 4], "little")
    return _is_command(message) and bool(flags & _MORE_TO_COME)


def _is_command(message: bytes) -> bool:
    """Greetings of old have another kind."""
    return int.from_bytes(message[12:16], "little") == _MSG


def _name(message: bytes) -> bytes:
    """Of a command: the name of the first field of its first section."""
    field = _HEAD_BYTES + 4 + 1 + 4 + 1
    return message[field : message.index(b"\0", field)]
