"""The wire itself: passes everything on, and fails in exactly the way that it was told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from servers.proxy import Proxy

Wire: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Server:
    """Answers each line with ``ok LINE``; remembers what it was asked."""

    asked: list[bytes] = field(default_factory=list)
    port: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.asked.append(line)
                writer.write(b"ok " + line)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    listener.close()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with asyncio.timeout(30), Proxy(server.port) as proxy:
        yield proxy


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(wire: Wire, line: bytes) -> bytes:
    """The answer to ``line``; empty when the connection ended."""
    reader, writer = wire
    try:
        writer.write(line)
        await writer.drain()
        return await reader.readline()
    except ConnectionError:
        return b""


async def is_well(proxy: Proxy) -> bool:
    async with connected(proxy) as wire:
        return await ask(wire, b"again\n") == b"ok again\n"


async def test_a_well_wire_passes_everything_on(proxy: Proxy, server: Server) -> None:
    large = b"x" * 60_000 + b"\n"

    async with connected(proxy) as first, connected(proxy) as second:
        assert await ask(first, b"one\n") == b"ok one\n"
        assert await ask(second, large) == b"ok " + large
        assert proxy.connections == 2

    assert server.asked == [b"one\n", large]
    assert proxy.strikes == 0


async def test_refuse_ends_open_connections_and_takes_no_new_ones(proxy: Proxy) -> None:
    async with connected(proxy) as wire:
        assert await ask(wire, b"one\n")
        proxy.refuse()

        assert await ask(wire, b"two\n") == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)

    await proxy.heal()
    assert await is_well(proxy)


async def test_in_a_black_hole_connections_stay_open_and_nothing_arrives(
    proxy: Proxy, server: Server
) -> None:
    async with connected(proxy) as wire:
        assert await ask(wire, b"one\n")
        proxy.black_hole()
        silent = asyncio.ensure_future(ask(wire, b"two\n"))
        await proxy.struck.wait()
        await proxy.heal()
        wire[1].write(b"three\n")

        assert await silent == b"ok three\n"
    assert server.asked == [b"one\n", b"three\n"]


async def test_reset_ends_open_connections_and_new_ones_at_their_first_word(
    proxy: Proxy, server: Server
) -> None:
    async with connected(proxy) as wire:
        assert await ask(wire, b"one\n")
        proxy.reset()
        assert await ask(wire, b"two\n") == b""
    async with connected(proxy) as wire:
        assert await ask(wire, b"three\n") == b""

    await proxy.heal()
    assert await is_well(proxy)
    assert server.asked == [b"one\n", b"again\n"]


async def test_a_delayed_or_throttled_wire_loses_nothing(proxy: Proxy, server: Server) -> None:
    async with connected(proxy) as wire:
        proxy.delay(0.01)
        assert await ask(wire, b"late\n") == b"ok late\n"
        proxy.throttle(10_000)
        assert await ask(wire, b"y" * 1000 + b"\n") == b"ok " + b"y" * 1000 + b"\n"

    assert len(server.asked) == 2


async def test_a_request_is_cut_after_so_many_bytes_once(proxy: Proxy, server: Server) -> None:
    async with connected(proxy) as wire:
        proxy.cut_after(8)
        assert await ask(wire, b"one\n") == b"ok one\n"
        assert await ask(wire, b"two\nthree\n") == b""

    assert await is_well(proxy)
    assert b"three\n" not in server.asked
    assert proxy.strikes == 1


async def test_a_reply_is_cut_after_so_many_bytes_once(proxy: Proxy, server: Server) -> None:
    async with connected(proxy) as wire:
        proxy.cut_after(5, replies=True)
        assert await ask(wire, b"three\n") in (b"ok th", b"")

    assert await is_well(proxy)
    assert server.asked[0] == b"three\n"


async def test_the_reply_of_one_request_is_dropped_after_the_server_did_it(
    proxy: Proxy, server: Server
) -> None:
    async with connected(proxy) as wire:
        proxy.drop_reply(b"INSERT")
        assert await ask(wire, b"SELECT\n") == b"ok SELECT\n"
        wire[1].write(b"INS")  # the words may come in pieces
        await wire[1].drain()
        assert await ask(wire, b"ERT\n") == b""

    await proxy.struck.wait()
    assert server.asked == [b"SELECT\n", b"INSERT\n"]
    assert await is_well(proxy)


async def test_a_reply_is_known_by_its_words(proxy: Proxy) -> None:
    async with connected(proxy) as wire:
        proxy.drop_reply(reply=b"ok COMMIT")
        assert await ask(wire, b"BEGIN\n") == b"ok BEGIN\n"
        assert await ask(wire, b"COMMIT\n") == b""

    assert await is_well(proxy)


async def test_as_many_replies_are_dropped_as_told(proxy: Proxy) -> None:
    proxy.drop_reply(b"INSERT", times=2)

    answers = []
    for _ in range(3):
        async with connected(proxy) as wire:
            answers.append(await ask(wire, b"INSERT\n"))

    assert answers == [b"", b"", b"ok INSERT\n"]
    assert proxy.strikes == 2


async def test_a_server_that_is_down_is_a_reset() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # ours, so that nobody else can listen there

        async with Proxy(closed.getsockname()[1]) as proxy, connected(proxy) as wire:
            assert await ask(wire, b"one\n") == b""


async def test_no_connection_outlives_the_proxy(server: Server) -> None:
    async with Proxy(server.port) as proxy:
        async with connected(proxy) as wire:
            assert await ask(wire, b"one\n")

    assert proxy.connections == 0
