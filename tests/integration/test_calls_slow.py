"""Streams whose provider is silent, and streams whose client reads slowly or not at all."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from aiohttp import web

from gateway import departure
from gateway.providers.stream import SseStream

ALIVE = b": keep-alive\n\n"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
KIB = 1024
FLAT = 2048 * KIB
"""What two reads of a connection may bring and a write may hold, and some more: a fraction of the stream."""
LONG_S = 20.0


def named(name, **members):
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n".encode()


async def soon(awaitable):
    async with asyncio.timeout(LONG_S):
        return await awaitable


@pytest.fixture
async def gateway(gateways):
    """It says that it is alive after hardly any silence."""
    return await gateways(streams={"keepalive_s": 0.005, "after_disconnect_s": 0, "unread_s": 0.05})


@pytest.fixture
def stage(gateway):
    return gateway.stage


# --- the provider is silent


async def test_a_silent_stream_is_kept_alive_with_comments(gateway, stage):
    stage.stream(stage.chunk("one"), stage.go, stage.chunk("two"), stage.usage(3, 4), stage.DONE)
    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()

    await caller.until(b"one")
    await caller.until(ALIVE)
    await caller.until(ALIVE)
    stage.go.set()
    await caller.until(b"two")
    await caller.until(stage.DONE)

    row = await gateway.row()
    assert (row.status, row.total_tokens) == ("success", 7)


async def test_a_stream_of_messages_is_kept_alive_with_pings(gateway, stage):
    stage.stream(named("message_start", message={}), stage.go, named("message_stop"))
    body = {"model": "act:m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}], "stream": True}
    caller = await gateway.call(body, "/v1/messages")
    await caller.head()

    await caller.until(b"message_start")
    await caller.until(PING)
    stage.go.set()
    await caller.until(b"message_stop")

    assert (await gateway.row()).status == "success"


async def test_a_comment_never_stands_within_an_event(gateway, stage):
    whole = stage.chunk("swordfish")
    stage.stream(stage.chunk("one"), whole[:20], stage.go, whole[20:], stage.DONE)
    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()
    await caller.until(b"one")

    await caller.until(ALIVE)
    stage.go.set()

    # Chunks of the connection may divide it, comments do not.
    read = await soon(caller.reader.readuntil(b"[DONE]"))
    assert whole in read
    assert (await gateway.row()).status == "success"


async def test_silences_cost_no_event(gateway, stage):
    """Each comment interrupts a read; what arrives at that very moment is not lost."""

    async def act(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(200):
            await response.write(stage.chunk(f"<{number}>"))
            await asyncio.sleep(0.0005 * (number % 20))
        await response.write(stage.DONE)
        return response

    stage.act = act
    response = await gateway.chat(stream=True)

    text = await response.read()
    events = text.replace(ALIVE, b"")
    assert events == b"".join(stage.chunk(f"<{number}>") for number in range(200)) + stage.DONE


async def test_sound_has_no_comments(gateway, stage):
    async def act(request):
        response = web.StreamResponse(headers={"Content-Type": "audio/mpeg"})
        await response.prepare(request)
        await response.write(b"one")
        await asyncio.sleep(0.03)
        await response.write(b"two")
        return response

    stage.act = act
    response = await gateway.post({"model": "stage:m", "input": "x", "voice": "y"}, "/v1/audio/speech")

    assert await response.read() == b"onetwo"


# --- the client reads slowly


@pytest.fixture
def held(monkeypatch):
    """What the gateway holds of a stream, in bytes, at each look; and an event: that no longer changes."""
    monkeypatch.setattr(departure, "LOOK_S", 0.005)
    streams, looks, stuck = [], [], asyncio.Event()

    class Noted(SseStream):
        def __init__(self, *args):
            super().__init__(*args)
            streams.append(self)

    class Looking(departure.Departure):
        def _look(self):
            if streams and (transport := self._request.transport) is not None:
                (stream,) = streams
                waiting = len(stream._parser._buffer)
                looks.append(transport.get_write_buffer_size() + stream._content._size + waiting)
                if len(looks) > 40 and len(set(looks[-40:])) == 1 and looks[-1]:
                    stuck.set()
            super()._look()

    monkeypatch.setattr("gateway.providers.openai.SseStream", Noted)
    monkeypatch.setattr("gateway.streaming.Departure", Looking)
    return looks, stuck


async def test_a_client_that_does_not_read_stops_the_provider_and_costs_little_memory(gateways, held):
    gateway = await gateways(streams={"unread_s": 0})
    stage = gateway.stage
    looks, stuck = held
    chunk, sent = stage.chunk("x" * 16 * KIB), []
    count = 4000  # 64 MiB: more than the buffers of both connections together

    async def act(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(count):
            await response.write(chunk)
            sent.append(len(chunk))
        await response.write(stage.DONE)
        return response

    stage.act = act
    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()
    await soon(stuck.wait())

    assert len(sent) < count, "the provider was not slowed down"
    assert max(looks) < FLAT

    read, piece = 0, b""
    while not piece.endswith(b"0\r\n\r\n"):
        piece = await soon(caller.reader.read(1024 * KIB))
        read += len(piece)
    assert read >= count * len(chunk)
    assert max(looks) < FLAT
    assert (await gateway.row()).status == "success"


async def never_ending(stage, gateway, connection=None):
    """A stream without an end, and a client that has its head and reads no more."""
    chunk = stage.chunk("x" * 64 * KIB)

    async def act(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(chunk)

    stage.act = act
    caller = await gateway.call(gateway.body(stream=True), connection=connection)
    await caller.head()
    return caller


async def test_a_client_that_never_reads_has_left_after_a_while(gateway, stage, monkeypatch):
    monkeypatch.setattr(departure, "LOOK_S", 0.005)

    await never_ending(stage, gateway)

    row = await gateway.row()
    assert (row.status, row.end_reason, row.status_code) == ("cancelled", "client_disconnect", 499)
    assert row.stream
    await soon(stage.dropped.wait())


async def test_a_client_that_never_reads_its_last_event_has_a_row_all_the_same(gateway, stage, monkeypatch):
    monkeypatch.setattr(departure, "LOOK_S", 0.005)
    stage.stream(stage.usage(3, 4), *[stage.chunk("x" * 64 * KIB)] * 400, stage.DONE)
    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()

    row = await gateway.row()

    assert row.usage_source in ("provider", "partial") and row.total_tokens == 7
    assert row.end_reason in ("complete", "client_disconnect")


async def narrow_connection(address):
    """Takes hardly more than 4 KiB that nobody has read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, address)
    return await asyncio.open_connection(sock=connection, limit=4 * KIB)


async def test_a_client_that_reads_slowly_but_steadily_has_not_left(gateways):
    """It reads 20 KiB a second, for longer than it may read nothing; the kernel takes no more from the
    gateway within that time."""
    gateway = await gateways(streams={"unread_s": 2, "after_disconnect_s": 0})
    connection = await narrow_connection(gateway.runner.addresses[0])
    caller = await never_ending(gateway.stage, gateway, connection=connection)

    for _ in range(30):
        assert await soon(caller.reader.read(4 * KIB))
        await asyncio.sleep(0.2)  # its way to read: nothing is waited for

    assert not gateway.stage.dropped.is_set()
    await caller.leave()
    assert (await gateway.row()).end_reason == "client_disconnect"
