"""Two workers beside one. On two cores the load generator and the provider share them, and it is said so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from statistics import median

from .figures import Rate, busy, middle, paired, per_cpu_s, per_s
from .generator import Load
from .ours import Variant, gateway
from .servers import Server, provider
from .setting import Setting, postgres
from .table import Line, Section, Table, number
from .turns import calls_per_second, take_turns
from .variants import dsn_for

ONE, TWO = "one worker", "two workers"
NEAR = 0.85
"""Of what the machine allows."""


async def workers(setting: Setting) -> Section:
    """The part. One worker has its core; two may use all, those of the load too."""
    cores = setting.cores
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(provider(setting.new_folder(), cores))
        databases = await stack.enter_async_context(postgres())
        servers = []
        for name, count, theirs in ((ONE, 1, cores.measured), (TWO, 2, cores.both())):
            writer = "batch:sqlite" if databases is None else "batch:postgres"
            variant = Variant(name, writer, workers=count)
            dsn = await dsn_for(variant, databases)
            entering = gateway(variant, setting.place(), theirs, upstream.url, dsn)
            servers.append((await stack.enter_async_context(entering)).server)
            await servers[-1].prove()

        async def measure(server: Server) -> Rate:
            load = Load(server.url, server.request())
            return await calls_per_second(server, load, cores, setting.seconds)

        return section(await take_turns("workers", servers, setting.rounds, measure), len(cores.both()))


def section(found: Mapping[str, Sequence[Rate]], cores: int) -> Section:
    """Medians of the rounds."""
    one, two = found[ONE], found[TWO]
    ratio = paired([each.per_s for each in two], [each.per_s for each in one])
    most = allowed(one, cores)
    why = f"load generator, provider and database use {load_us(one):.0f} us a call of the same cores"
    goal = f"as near 2 as the machine allows, which is {most:.2f}"
    line = Line("two workers against one", goal, f"{ratio:.2f}", ratio >= NEAR * most, why)
    header = ("", "calls/s", "calls per CPU second", "workers' CPU")
    rows = [
        (name, number(middle(each, per_s)), number(middle(each, per_cpu_s)), f"{middle(each, busy):.0%}")
        for name, each in found.items()
    ]
    raw = {name: [asdict(rate) for rate in each] for name, each in found.items()}
    return Section("workers", [line], [Table("Workers", header, rows)], raw)


def allowed(one: Sequence[Rate], cores: int) -> float:
    """How many times one worker's calls ``cores`` could do, if they did nothing but calls."""
    worker_us = 1_000_000 / middle(one, per_cpu_s)
    return min(2.0, cores * worker_us / (worker_us + load_us(one)))


def load_us(one: Sequence[Rate]) -> float:
    """Microseconds per call of everybody but the worker, who has a core to himself."""
    return median(each.load_busy / each.per_s for each in one) * 1_000_000
