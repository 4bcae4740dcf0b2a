"""A gateway that was given no master key makes one: printed once by one of its workers, kept as a hash."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

EXIT_S = 45.0


@pytest.fixture
def serve(start, configuration, tmp_path):
    """``async with serve(workers) as (process, url)``; what it prints is in the file ``out``."""

    @asynccontextmanager
    async def started(workers: int) -> AsyncIterator[tuple[object, str]]:
        config = configuration(master_key=None, workers=workers)
        serving = (sys.executable, "-m", "gateway", "serve", "--config", str(config), "--port", "0")
        async with start("sh", "-c", 'exec "$@" >out', "sh", *serving) as process:
            yield process, (await process.said("listening"))["url"]
            process.send(signal.SIGTERM)
            assert await process.exit_status() == 0

    return started


async def opens(url: str, key: str) -> int:
    """What a call that only the master may make gets, over a connection of its own."""
    async with aiohttp.ClientSession(headers={"x-api-key": key}) as session:
        async with session.get(f"{url}/v1/log-writer") as response:
            return response.status


async def printed(url: str, read: Callable[[], str]) -> str:
    """The key, once it is there: looked for again and again, since printing has no event."""
    async with asyncio.timeout(EXIT_S), aiohttp.ClientSession() as session:
        while not (text := read()):
            async with session.get(f"{url}/health"):
                pass
    return text.split()[-1]


async def test_one_of_two_workers_prints_the_key_that_opens_both_and_every_later_start(
    serve, tmp_path: Path
) -> None:
    async with serve(2) as (first, url):
        key = await printed(url, (tmp_path / "out").read_text)
        async with asyncio.timeout(EXIT_S):
            while 503 in (found := [await opens(url, key) for _ in range(16)]):
                pass  # the other worker has not asked yet whose key it is
        assert set(found) == {200}
        assert await opens(url, "tg-other") == 401
    assert (tmp_path / "out").read_text().count("tg-") == 1

    async with serve(1) as (second, url):
        async with asyncio.timeout(EXIT_S):
            while (status := await opens(url, key)) == 503:
                pass
        assert status == 200

    assert (tmp_path / "out").read_text() == ""
    for process in (first, second):
        assert key not in "\n".join(process.text)
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or key.encode() not in file.read_bytes(), file
