"""`make bench`, fourth part: what keys, prices and budgets cost a call, in one run.

The same gateway again and again, each with another store and budget strategy; they take turns, so that the
machine's moods meet all of them. All calls of one gateway are one user's, the worst case for a strategy that
locks. `--beside CHECKOUT` adds the gateway of another checkout of this project (with an environment in its
`.venv`), which is how a change is compared with what was before it. Servers are those of the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from bench import KEY, ROUNDS, address, calls_per_second, program
from bench_spool import RATE, latencies_ms, nearest_rank
from processes import OURS, QUICKSTART, START_S, Child, child

TESTS = Path(__file__).resolve().parent.parent / "tests"
BUDGET_USD = 1000


@dataclass(frozen=True)
class Variant:
    """``strategy`` None: calls with the master key. ``store`` is a scheme."""

    name: str
    strategy: str | None = None
    store: str = "sqlite"


VARIANTS = (
    Variant("master key, sqlite store"),
    Variant("key, disabled, sqlite store", "disabled"),
    Variant("key, cas, sqlite store", "cas"),
    Variant("key, for_update, sqlite store", "for_update"),
    Variant("key, cas, postgres store", "cas", "postgres"),
    Variant("key, for_update, postgres store", "for_update", "postgres"),
)


@dataclass
class Runner:
    """One gateway, and a list of figures, one of each for every round."""

    url: str
    pid: int
    key: str
    per_cpu_s: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    async def round(self, is_warm_up: bool) -> None:
        """As many calls as it can do, then calls at a steady rate."""
        per_cpu_s, per_s = await calls_per_second(self.url, self.pid, self.key)
        latencies = sorted(await latencies_ms(self.url, self.key))
        if not is_warm_up:
            self.per_cpu_s.append(per_cpu_s)
            self.per_s.append(per_s)
            self.p50_ms.append(nearest_rank(latencies, 0.50))
            self.p99_ms.append(nearest_rank(latencies, 0.99))


# --- gateways


@asynccontextmanager
async def serving(
    folder: Path, provider_url: str, python: str, config: Path, variables: Mapping[str, str]
) -> AsyncIterator[tuple[Child, str]]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    env |= {"GATEWAY_MASTER_KEY": KEY, "FAKE_PROVIDER_URL": provider_url, **variables}
    command = (python, "-m", "gateway", "serve", "--config", str(config), "--port", "0")
    async with child("gateway", *command, env=env, folder=folder) as running:
        yield running, str((await running.said("listening", START_S))["url"])


async def make_key(url: str) -> str:
    """A key of a user with a budget that lasts."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def post(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
            async with session.post(f"{url}{path}", json=body) as response:
                assert response.status == 201, await response.text()
                return dict(await response.json())

        budget = await post("/v1/budgets", {"max_usd": BUDGET_USD, "reset_every": None})
        await post("/v1/users", {"user_id": "bench", "budget_id": budget["id"]})
        return str((await post("/v1/keys", {"user_id": "bench"}))["key"])


async def started(stack: AsyncExitStack, variant: Variant, dsn: str, url: str, folder: Path) -> Runner:
    variables = {"GATEWAY_BUDGET_STRATEGY": variant.strategy or "disabled"}
    if variant.store == "postgres":
        variables["GATEWAY_STORE__URL"] = dsn
    entering = serving(folder, url, sys.executable, QUICKSTART, variables)
    running, gateway_url = await stack.enter_async_context(entering)
    key = KEY if variant.strategy is None else await make_key(gateway_url)
    return Runner(gateway_url, (await address(running))[1], key)


async def started_beside(stack: AsyncExitStack, checkout: Path, url: str, folder: Path) -> Runner:
    python, config = checkout / ".venv" / "bin" / "python", checkout / "config" / "quickstart.yml"
    entering = serving(folder, url, str(python), config, {})
    running, gateway_url = await stack.enter_async_context(entering)
    return Runner(gateway_url, (await address(running))[1], KEY)


@asynccontextmanager
async def databases() -> AsyncIterator[list[str]]:
    """A server, and a database of its own for each gateway that wants one."""
    sys.path.insert(0, str(TESTS))
    server = importlib.import_module("servers.postgres").PostgresServer.find()
    asyncpg = importlib.import_module("asyncpg")
    await asyncio.to_thread(server.start)
    try:
        connection = await asyncpg.connect(server.dsn)
        names = [f"bench_{number}" for number in range(len(VARIANTS))]
        for name in names:
            await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        yield [server.dsn_of("tallygate", database=name) for name in names]
    finally:
        await asyncio.to_thread(server.stop)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# --- the comparison


async def compare(folder: Path, beside: Path | None) -> dict[str, Runner]:
    """Rounds of all gateways in turn."""
    runners: dict[str, Runner] = {}
    async with AsyncExitStack() as stack:
        dsns = await stack.enter_async_context(databases())
        url, _ = await stack.enter_async_context(program("provider", "--provider", folder=folder))
        if beside is not None:
            runners["before, master key"] = await started_beside(stack, beside, url, made(folder / "beside"))
        for number, variant in enumerate(VARIANTS):
            place = made(folder / str(number))
            runners[variant.name] = await started(stack, variant, dsns[number], url, place)
        for number in range(ROUNDS + 1):
            print(f"  budgets, round {number} of {ROUNDS}" + (" (warm-up)" if not number else ""), flush=True)
            for runner in runners.values():
                await runner.round(is_warm_up=not number)
    return runners


def show(runners: Mapping[str, Runner]) -> None:
    """The table; ratios are to its first line."""
    print(f"\nPython {sys.version.split()[0]}, {os.cpu_count()} CPUs; medians of {ROUNDS} rounds")
    print(f"\n| gateway | calls/s | calls per CPU second | ratio | p50 at {RATE}/s | p99 at {RATE}/s |")
    print("|---|---|---|---|---|---|")
    median = statistics.median
    first = next(iter(runners.values()))
    for name, each in runners.items():
        per_cpu = median(each.per_cpu_s)
        ratio = statistics.median(a / b for a, b in zip(each.per_cpu_s, first.per_cpu_s, strict=True))
        print(
            f"| {name} | {median(each.per_s):,.0f} | {per_cpu:,.0f} | {ratio:.2f} "
            f"| {median(each.p50_ms):.1f} ms | {median(each.p99_ms):.1f} ms |"
        )


async def main(beside: Path | None) -> None:
    folder = Path(tempfile.mkdtemp(prefix="tallygate-bench-"))
    try:
        show(await compare(folder, beside))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="another checkout to compare with")
    uvloop.run(main(parser.parse_args().beside))
