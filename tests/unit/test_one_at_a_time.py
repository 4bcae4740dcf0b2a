"""The proxy that gives each command a turn of its own, before a server that answers when it is told to."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TypeAlias

import pytest
from servers.one_at_a_time import OneAtATime

Client: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SlowServer:
    """Takes messages; the test answers them, or not."""

    def __init__(self) -> None:
        self.port = 0
        self._came: asyncio.Queue[tuple[bytes, asyncio.StreamWriter]] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self._came.put_nowait((await read_message(reader), writer))
        writer.transport.abort()

    async def next(self) -> tuple[bytes, asyncio.StreamWriter]:
        async with asyncio.timeout(30):
            return await self._came.get()

    def has_more(self) -> bool:
        return not self._came.empty()


@pytest.fixture
async def server() -> AsyncIterator[SlowServer]:
    slow = SlowServer()
    listener = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
    slow.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield slow


@pytest.fixture
async def clients(server: SlowServer) -> AsyncIterator[list[Client]]:
    """Three, connected through the proxy."""
    async with OneAtATime(server.port) as turns:
        ends = [await asyncio.open_connection("127.0.0.1", turns.port) for _ in range(3)]
        yield ends
        for _, writer in ends:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_a_command_waits_for_the_answer_to_the_one_before(
    server: SlowServer, clients: list[Client]
) -> None:
    first, second, third = clients
    send(first, b"update")
    message, writer = await server.next()
    send(second, b"find")
    send(third, b"hello")
    greeting, _ = await server.next()

    assert (b"update" in message, b"hello" in greeting, server.has_more()) == (True, True, False)
    writer.write(packed(b"ok"))
    assert b"ok" in await read_message(first[0])
    message, _ = await server.next()
    assert b"find" in message


async def test_a_turn_lasts_until_the_answer_though_the_client_has_gone(
    server: SlowServer, clients: list[Client]
) -> None:
    first, second, third = clients
    send(first, b"update")
    _, writer = await server.next()
    first[1].transport.abort()
    send(second, b"find")
    send(third, b"ping")
    await server.next()

    assert not server.has_more()
    writer.write(packed(b"ok"))
    message, _ = await server.next()
    assert b"find" in message


async def test_a_turn_ends_with_the_server_that_does_not_answer(
    server: SlowServer, clients: list[Client]
) -> None:
    first, second, _ = clients
    send(first, b"update")
    _, writer = await server.next()
    send(second, b"find")
    writer.transport.abort()

    message, _ = await server.next()
    assert b"find" in message


async def test_a_message_without_an_answer_takes_no_turn(server: SlowServer, clients: list[Client]) -> None:
    first, second, _ = clients
    send(first, b"insert", flags=2)
    await server.next()
    send(second, b"find")

    message, _ = await server.next()
    assert b"find" in message


def send(to: Client, name: bytes, *, flags: int = 0) -> None:
    to[1].write(packed(name, flags))


def packed(name: bytes, flags: int = 0) -> bytes:
    """A command ``{name: 1}``."""
    field = b"\x10" + name + b"\0" + struct.pack("<i", 1) + b"\0"
    body = struct.pack("<IB", flags, 0) + struct.pack("<i", 4 + len(field)) + field
    return struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body


async def read_message(reader: asyncio.StreamReader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(struct.unpack("<i", size)[0] - 4)
