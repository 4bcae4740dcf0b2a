"""`make bench`: what this machine does, in one run, so that the ratios mean something.

Rows per second through the core into each embedded sink, and calls per second of the gateway on one core
beside a bare aiohttp pass-through that keeps no books. Calls are counted per second of the server's own CPU
time, so that the load generator and the provider, which share the machine, do not blur the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web
from processes import Child, child, gateway

from backends import BatchingOptions, BatchLogWriter, DeadLetterFile, sinks
from backends.admission import Place
from backends.record import UsageRecord
from backends.testing import make_record

ROWS = 100_000
CALLS = 3000
CLIENTS = 32
ROUNDS = 3
CHUNK = 1000
KEY = "tg-bench"
TICKS = os.sysconf("SC_CLK_TCK")

ANSWER = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "model": "fake",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "word " * 50}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 50, "completion_tokens": 50, "total_tokens": 100},
}
REQUEST = {"model": "local:fake", "messages": [{"role": "user", "content": "word " * 50}]}


# --- the core


async def rows_per_second(sink_name: str, folder: Path) -> float:
    """Rows accepted, batched and committed per second of wall time, the last commit included."""
    sink_class = sinks.load(sink_name)
    settings = {"path": folder / "bench.db"} if sink_name == "sqlite" else {}
    async with sink_class.open(sink_class.Options(**settings)) as sink:
        options = BatchingOptions().with_defaults_of(sink.batching_defaults)
        letters = DeadLetterFile(folder / "dead")
        writer = BatchLogWriter(sink, options, sink_name=sink_name, dead_letters=letters)
        await writer.start()
        began = time.perf_counter()
        await put_rows(writer, make_record())
        report = await writer.stop(60)
        letters.close()
        seconds = time.perf_counter() - began
    assert report.stats.counts.committed == ROWS, report
    return ROWS / seconds


async def put_rows(writer: BatchLogWriter, row: UsageRecord) -> None:
    put = 0
    while put < ROWS:
        place = await writer.reserve()
        if isinstance(place, Place):
            place.put(row)
            put += 1
        if put % CHUNK == 0:
            await asyncio.sleep(0)  # as calls would: the collector has its turn


# --- calls


async def answer(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response(ANSWER)


async def pass_through(request: web.Request) -> web.Response:
    """The least a proxy can do with aiohttp."""
    session: aiohttp.ClientSession = request.app["session"]
    body = await request.read()
    url = request.app["upstream"] + "/v1/chat/completions"
    async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
        return web.Response(body=await response.read(), content_type="application/json")


def serve(upstream: str | None) -> None:
    """A program of this file: the provider, or with ``upstream`` the bare pass-through."""

    async def session(app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as app["session"]:
            yield

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", pass_through if upstream else answer)
        if upstream:
            app["upstream"] = upstream
            app.cleanup_ctx.append(session)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        print(json.dumps({"event": "listening", "url": url, "pid": os.getpid()}), flush=True)
        await asyncio.Event().wait()

    uvloop.run(main())


@asynccontextmanager
async def program(name: str, *arguments: str, folder: Path) -> AsyncIterator[tuple[str, int]]:
    command = (sys.executable, __file__, *arguments)
    async with child(name, *command, env=os.environ, folder=folder) as running:
        yield await address(running)


async def address(running: Child) -> tuple[str, int]:
    said = await running.said("listening", 30)
    return str(said["url"]), int(said["pid"])


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def calls_per_second(url: str, pid: int, key: str = KEY) -> tuple[float, float]:
    """Calls per second of the server's CPU time, and of wall time; ``CLIENTS`` clients in a closed loop."""
    left = iter(range(CALLS))
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def client() -> None:
            for _ in left:
                async with session.post(f"{url}/v1/chat/completions", json=REQUEST) as response:
                    await response.read()
                    assert response.status == 200, response.status

        cpu, wall = cpu_s(pid), time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return CALLS / (cpu_s(pid) - cpu), CALLS / (time.perf_counter() - wall)


async def compare_calls(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Rounds of both servers in turn, so that the machine's moods meet both."""
    figures: dict[str, list[tuple[float, float]]] = {"bare pass-through": [], "gateway": []}
    async with (
        program("provider", "--provider", folder=folder) as (provider_url, _),
        program("bare", "--upstream", provider_url, folder=folder) as (bare_url, bare_pid),
        gateway(folder, provider_url=provider_url, master_key=KEY) as (running, gateway_url),
    ):
        _, gateway_pid = await address(running)
        for number in range(ROUNDS + 1):
            print(f"  calls, round {number} of {ROUNDS}" + (" (warm-up)" if not number else ""), flush=True)
            bare = await calls_per_second(bare_url, bare_pid)
            ours = await calls_per_second(gateway_url, gateway_pid)
            if number:
                figures["bare pass-through"].append(bare)
                figures["gateway"].append(ours)
    return figures


# --- the report


async def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="tallygate-bench-"))
    try:
        rows: dict[str, list[float]] = {"memory": [], "sqlite": []}
        for number in range(ROUNDS):
            print(f"  rows, round {number + 1} of {ROUNDS}", flush=True)
            for name, figures in rows.items():
                place = folder / f"{name}-{number}"
                place.mkdir()
                figures.append(await rows_per_second(name, place))
        calls = await compare_calls(folder)
    finally:
        shutil.rmtree(folder)
    show(rows, calls)


def show(rows: dict[str, list[float]], calls: dict[str, list[tuple[float, float]]]) -> None:
    print(f"\nPython {sys.version.split()[0]}, aiohttp {aiohttp.__version__}; medians of {ROUNDS} rounds")
    for name, figures in rows.items():
        print(f"  {ROWS} rows through the core into {name:<8} {statistics.median(figures):>10,.0f} rows/s")
    per_cpu = {name: statistics.median(cpu for cpu, _ in each) for name, each in calls.items()}
    for name, each in calls.items():
        wall = statistics.median(wall for _, wall in each)
        print(
            f"  {name:<20} {per_cpu[name]:>8,.0f} calls per CPU second   {wall:>8,.0f} calls/s seen outside"
        )
    ratio = per_cpu["gateway"] / per_cpu["bare pass-through"]
    print(f"  the gateway does {ratio:.2f} of the bare pass-through's calls per CPU second")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--upstream", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.provider or arguments.upstream:
        serve(arguments.upstream)
    else:
        asyncio.run(main())
