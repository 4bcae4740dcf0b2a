"""Readers of one byte per second, on streams as fast as a provider can send them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID

from aiohttp import web

KIB = 1024
MIB = 1024 * KIB
READERS = 5
STREAM_BYTES = 60 * MIB
FLAT_MIB = 4 * READERS
"""What these streams may cost the gateway: twice what it holds of them at most, which is a few reads of a
connection (256 KiB) in their different shapes, and a fifteenth of what the provider has for them."""
MESSAGE = {"role": "user", "content": "x"}
BYTES_READ = 3
LOOK_S = 0.2
LOOKS = 10
"""So often the provider is looked at without anything new, until it is taken to be held back."""
LONG_S = 120.0


class Flood:
    """A provider that sends ``max_tokens`` bytes as fast as they are taken; ``sent``: those of each call."""

    CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % (b"x" * 16 * KIB)

    def __init__(self) -> None:
        self.sent: list[int] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["max_tokens"]
        number = len(self.sent)
        self.sent.append(0)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while self.sent[number] < asked:
            await response.write(self.CHUNK)
            self.sent[number] += len(self.CHUNK)
        await response.write(b"data: [DONE]\n\n")
        return response


@asynccontextmanager
async def flooding() -> AsyncIterator[tuple[Flood, dict[str, object]]]:
    """The provider, and the section that names it."""
    flood, app = Flood(), web.Application()
    app.router.add_post("/v1/chat/completions", flood.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = "http://{}:{}/v1".format(*runner.addresses[0][:2])
        yield flood, {"local": {"type": "openai", "base_url": url, "api_key": "sk-nobodys"}}
    finally:
        await runner.cleanup()


class Reader:
    """A client that has few bytes of a stream at a time, and takes one of them each second."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def begin(self, url: str, key: str) -> UUID:
        """Ask for the stream and read its head; the id of the row."""
        host, port = url.removeprefix("http://").split(":")
        await self._loop.sock_connect(self._socket, (host, int(port)))
        body = {"model": "local:x", "messages": [MESSAGE], "stream": True, "max_tokens": STREAM_BYTES}
        raw = json.dumps(body)
        head = ("POST /v1/chat/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {key}")
        lines = (*head, "Content-Type: application/json", f"Content-Length: {len(raw)}", "", raw)
        await self._loop.sock_sendall(self._socket, "\r\n".join(lines).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await self._byte()
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        names = (line.partition(": ") for line in answer.decode().splitlines())
        return next(UUID(value) for name, _, value in names if name.lower() == "x-usage-id")

    async def read_slowly(self) -> None:
        for _ in range(BYTES_READ):
            await self._byte()
            await asyncio.sleep(1)  # its way to read: nothing is waited for

    async def _byte(self) -> bytes:
        byte = await self._loop.sock_recv(self._socket, 1)
        assert byte, "the gateway hung up on a client that reads"
        return byte

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


async def held_back(flood: Flood, pid: int) -> float:
    """The most memory that the gateway had, in MiB, until the provider could send no more."""
    sent, since, most = 0, 0, 0.0
    while since < LOOKS:
        most = max(most, resident_mib(pid))
        since = since + 1 if sent == sum(flood.sent) else 0
        sent = sum(flood.sent)
        await asyncio.sleep(LOOK_S)
    return most


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


async def test_readers_of_one_byte_per_second_cost_no_memory_and_hold_their_providers_back(
    serve, master_key
) -> None:
    async with (
        asyncio.timeout(LONG_S),
        flooding() as (flood, providers),
        serve(providers=providers, streams={"after_disconnect_s": 0}) as gateway,
    ):
        async with gateway.chat(stream=True, tokens=MIB) as quick:  # what a first stream costs is not theirs
            await quick.read()
        before = resident_mib(gateway.process.pid)

        with ExitStack() as connections:
            readers = [connections.enter_context(Reader()) for _ in range(READERS)]
            promised = [await reader.begin(gateway.url, master_key) for reader in readers]
            reading = [reader.read_slowly() for reader in readers]
            most, *_ = await asyncio.gather(held_back(flood, gateway.process.pid), *reading)
            sent = flood.sent[1:]

        assert most - before < FLAT_MIB
        assert len(sent) == READERS and max(sent) < STREAM_BYTES / 2, "a provider was not held back"
        await gateway.ledger_shows(committed=1 + READERS)
        assert await gateway.stop() == 0
        rows = [(row["id"], row["end_reason"]) for row in gateway.rows()]
        left = [(each, "client_disconnect") for each in promised]
        assert sorted(rows) == sorted([(gateway.promised(quick), "complete"), *left])
