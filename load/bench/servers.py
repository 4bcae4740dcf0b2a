"""What is measured: a running server, and what it is sent.

A server is started on its cores and asked once, so that one that answers nonsense quickly is not praised.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from processes import ROOT, START_S, child

from .cores import Cores, on
from .generator import request_bytes
from .passthrough import PATH
from .provider import CHUNKS

KEY = "tg-bench"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "load")}
COUNTED = re.compile(rb"^data: \{", re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """``pid`` counts with all it started. ``streams`` is where it takes streams, if not at ``url``."""

    name: str
    url: str
    pid: int
    model: str = "fake"
    headers: Mapping[str, str] = field(default_factory=dict)
    streams: str = ""

    def request(self, model: str = "", *, is_streamed: bool = False) -> bytes:
        """A call, as it goes over the wire."""
        url = f"{self.streams if is_streamed and self.streams else self.url}{PATH}"
        return request_bytes(url, self._body(model, is_streamed), self.headers)

    def _body(self, model: str, is_streamed: bool) -> bytes:
        # ``model`` takes the place of the last part of the server's own name for it.
        name = re.sub(r"fake$", model or "fake", self.model)
        body = {"model": name, "messages": [{"role": "user", "content": "word " * 50}]}
        return json.dumps({**body, "stream": True} if is_streamed else body).encode()

    async def prove(self) -> None:
        """One call, whose answer must be the provider's. Raises ``AssertionError``."""
        text = await self._ask(is_streamed=False)
        assert json.loads(text)["usage"]["total_tokens"] == 100, text

    async def prove_streams(self) -> None:
        """The same of a stream."""
        text = await self._ask(is_streamed=True)
        assert len(COUNTED.findall(text)) >= CHUNKS, text[-500:]

    async def _ask(self, is_streamed: bool) -> bytes:
        url = f"{self.streams if is_streamed and self.streams else self.url}{PATH}"
        headers = {"Content-Type": "application/json", **self.headers}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(url, data=self._body("", is_streamed)) as response,
        ):
            text = await response.read()
            assert response.status == 200, f"{self.name}: {response.status} {text[:500]!r}"
            return text


@asynccontextmanager
async def program(
    folder: Path, cores: Collection[int], module: str, *arguments: str
) -> AsyncIterator[tuple[str, int]]:
    """A program of this package; gives its URL and the number of its process."""
    command = on(cores, sys.executable, "-m", f"bench.{module}", *arguments)
    async with child(module, *command, env=ENVIRONMENT, folder=folder) as running:
        yield str((await running.said("listening", START_S))["url"]), running.pid


@asynccontextmanager
async def provider(folder: Path, cores: Cores) -> AsyncIterator[Server]:
    """The provider, as a server that may be asked directly."""
    async with program(folder, cores.load, "provider") as (url, pid):
        yield Server("provider, nothing between", url, pid)
