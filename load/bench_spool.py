"""`make bench`, third part: what the spool's modes cost a call, in one run.

The same gateway on its embedded default, once for each mode; they take turns, so that the machine's moods
meet all of them. Calls per second are those of a closed loop of clients that never pause; latencies are those
of calls that come at a steady rate, far below what the gateway can do. In the end each gateway is stopped,
and the rows in its file are counted: a mode that is fast because it loses rows would be no bargain.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import uvloop
from bench import CALLS, KEY, REQUEST, ROUNDS, address, calls_per_second, program
from processes import Child, gateway
from tally import read_rows

RATE = 200
"""Calls per second while latency is measured: far below what one gateway can do."""
STEADY_CALLS = 1000
STOP_S = 30.0
FLUSHES = 200
FLUSH_BYTES = 4096

MODES = {
    "off": {"GATEWAY_SPOOL__MODE": "off"},
    "spill": {"GATEWAY_SPOOL__MODE": "spill"},
    "write_ahead, sync: normal": {"GATEWAY_SPOOL__MODE": "write_ahead", "GATEWAY_SPOOL__SYNC": "normal"},
    "write_ahead, sync: full": {"GATEWAY_SPOOL__MODE": "write_ahead", "GATEWAY_SPOOL__SYNC": "full"},
}


@dataclass
class Runner:
    """One gateway in one mode, and a list of figures, one of each for every round."""

    child: Child
    url: str
    pid: int
    folder: Path
    calls: int = 0
    per_cpu_s: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    async def round(self, is_warm_up: bool) -> None:
        """As many calls as it can do, then calls at a steady rate."""
        per_cpu_s, per_s = await calls_per_second(self.url, self.pid)
        latencies = sorted(await latencies_ms(self.url))
        self.calls += CALLS + STEADY_CALLS
        if not is_warm_up:
            self.per_cpu_s.append(per_cpu_s)
            self.per_s.append(per_s)
            self.p50_ms.append(nearest_rank(latencies, 0.50))
            self.p99_ms.append(nearest_rank(latencies, 0.99))

    async def stop(self) -> None:
        """SIGTERM, and the count. Raises ``AssertionError``."""
        self.child.stop()
        status = await self.child.exit_status(STOP_S)
        stored = len({row.id for row in read_rows(self.folder / "data" / "usage.db")})
        assert (status, stored) == (0, self.calls), f"exit status {status}, {stored} of {self.calls} rows"


async def latencies_ms(url: str, key: str = KEY) -> list[float]:
    """How long each of ``STEADY_CALLS`` calls took, sent at ``RATE`` whether or not earlier ones are done."""
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def call() -> float:
            began = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", json=REQUEST) as response:
                await response.read()
                assert response.status == 200, response.status
            return (time.perf_counter() - began) * 1000

        calls = []
        began = time.perf_counter()
        for number in range(STEADY_CALLS):
            await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            calls.append(asyncio.create_task(call()))
        return await asyncio.gather(*calls)


def nearest_rank(ascending: Sequence[float], part: float) -> float:
    """The smallest value with at least ``part`` of all at or below it."""
    return ascending[math.ceil(part * len(ascending)) - 1]


def flush_ms(folder: Path) -> float:
    """What the disk asks for being asked to keep a page: the floor under `sync: full`."""
    times = []
    descriptor = os.open(folder / "flush", os.O_WRONLY | os.O_CREAT)
    try:
        for _ in range(FLUSHES):
            began = time.perf_counter()
            os.write(descriptor, bytes(FLUSH_BYTES))
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - began) * 1000)
    finally:
        os.close(descriptor)
    return statistics.median(times)


async def compare(folder: Path) -> dict[str, Runner]:
    """Rounds of all modes in turn."""
    runners: dict[str, Runner] = {}
    async with AsyncExitStack() as stack:
        url, _ = await stack.enter_async_context(program("provider", "--provider", folder=folder))
        for number, (mode, variables) in enumerate(MODES.items()):
            place = folder / str(number)
            place.mkdir()
            serving = gateway(place, provider_url=url, master_key=KEY, variables=variables)
            child, gateway_url = await stack.enter_async_context(serving)
            runners[mode] = Runner(child, gateway_url, (await address(child))[1], place)
        for number in range(ROUNDS + 1):
            print(f"  spool, round {number} of {ROUNDS}" + (" (warm-up)" if not number else ""), flush=True)
            for runner in runners.values():
                await runner.round(is_warm_up=not number)
        for runner in runners.values():
            await runner.stop()
    return runners


def show(runners: dict[str, Runner], flush: float) -> None:
    """The table, as `docs/guarantees.md` has it."""
    print(f"\nPython {sys.version.split()[0]}, {os.cpu_count()} CPUs; medians of {ROUNDS} rounds;", end=" ")
    print(f"fdatasync of {FLUSH_BYTES} bytes on this disk: {flush:.2f} ms\n")
    print(f"| spool | calls per second | calls per CPU second | p50 at {RATE}/s | p99 at {RATE}/s |")
    print("|---|---|---|---|---|")
    median = statistics.median
    for mode, each in runners.items():
        rates = f"{median(each.per_s):,.0f} | {median(each.per_cpu_s):,.0f}"
        print(f"| `{mode}` | {rates} | {median(each.p50_ms):.1f} ms | {median(each.p99_ms):.1f} ms |")


async def main(parent: Path | None) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tallygate-bench-", dir=parent))
    try:
        flush = flush_ms(folder)
        show(await compare(folder), flush)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the temporary one's)")
    uvloop.run(main(parser.parse_args().folder))
