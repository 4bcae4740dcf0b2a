"""A load balancer as simple as they come: each connection goes to the next gateway, in turn, that says it is
ready. What happens on the connection afterwards is the two ends' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

import aiohttp

from .listener import Listener

_CHUNK_BYTES = 64 * 1024


class Balancer:
    """``async with Balancer(urls) as balancer``; clients call ``balancer.url``. ``taken`` counts, by URL, the
    connections that went there."""

    def __init__(self, urls: Iterable[str]) -> None:
        self.taken = dict.fromkeys(urls, 0)
        self.url = ""
        self._turns = 0
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        self._listener = Listener(self._serve, self._serving)
        self.url = f"http://127.0.0.1:{self._listener.port}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._listener.close()
        if self._serving:
            await asyncio.wait(self._serving)
        await self._session.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for url in self._in_turn():
            if not await self._is_ready(url):
                continue
            with suppress(OSError):
                parts = urlsplit(url)
                behind = await asyncio.open_connection(parts.hostname, parts.port)
                self.taken[url] += 1
                await asyncio.gather(_pass(reader, behind[1]), _pass(behind[0], writer))
                return

    def _in_turn(self) -> list[str]:
        urls = list(self.taken)
        self._turns += 1
        first = self._turns % len(urls)
        return urls[first:] + urls[:first]

    async def _is_ready(self, url: str) -> bool:
        with suppress(aiohttp.ClientError):
            async with self._session.get(f"{url}/health/readiness") as response:
                return response.status == 200
        return False


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(_CHUNK_BYTES):
            target.write(chunk)
            await target.drain()
    target.close()
    with suppress(OSError):
        await target.wait_closed()
