"""The gateway against itself: what the spool's modes cost, what keys and budgets cost, and what another
checkout of this project does.

Calls per second are those of a closed loop; latencies are those of calls at a steady rate, far below what one
gateway can do. All calls of one gateway are one user's, the worst case for a budget that locks.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from tally import read_rows

from .figures import Rate, against, middle, nearest_rank, paired, per_cpu_s, per_s
from .generator import Load
from .latency import overheads_ms
from .ours import Gateway, Variant, gateway
from .servers import Server, provider
from .setting import Databases, Setting, postgres
from .table import Section, Table, number
from .turns import calls_per_second, take_turns
from .yardsticks import BARE, bare

RATE = 200
"""Calls per second while latency is measured."""
ROUNDS = 3
STOP_S = 30.0
FLUSHES, FLUSH_BYTES = 200, 4096

SPOOLS = {
    "off": {"mode": "off"},
    "spill": {"mode": "spill"},
    "write_ahead, sync: normal": {"mode": "write_ahead", "sync": "normal"},
    "write_ahead, sync: full": {"mode": "write_ahead", "sync": "full"},
}
SPOOL_VARIANTS = tuple(Variant(name, spool=settings) for name, settings in SPOOLS.items())
BUDGET_VARIANTS = (
    Variant("master key, sqlite store", has_key=False),
    Variant("key, disabled, sqlite store"),
    Variant("key, cas, sqlite store", budgets="cas"),
    Variant("key, for_update, sqlite store", budgets="for_update"),
    Variant("key, cas, postgres store", budgets="cas", store="postgres"),
    Variant("key, for_update, postgres store", budgets="for_update", store="postgres"),
)
BESIDE_VARIANTS = (Variant("noop", "noop"), Variant("sqlite"), Variant("postgres", "batch:postgres"))


@dataclass(frozen=True)
class Figure:
    """One round of one gateway."""

    rate: Rate
    p50_ms: float
    p99_ms: float


async def spool(setting: Setting) -> Section:
    """The spool's modes. In the end each gateway is stopped and its rows are counted: a mode that is fast
    because it loses rows would be no bargain."""
    async with AsyncExitStack() as stack:
        gateways = await started(stack, setting, SPOOL_VARIANTS)
        called: Counter[str] = Counter(each.server.name for each in gateways)  # to prove itself
        figures = await compared(setting, "spool", [each.server for each in gateways], called)
        for each in gateways:
            await stop(each, called[each.server.name])
    found = section("spool", "What the spool's modes cost", figures)
    floor = f"`fdatasync` of {FLUSH_BYTES} bytes on this disk: {flush_ms(setting.new_folder()):.2f} ms"
    return replace(found, tables=[replace(each, notes=[floor]) for each in found.tables])


async def budgets(setting: Setting) -> Section:
    """Keys, prices and budgets."""
    async with AsyncExitStack() as stack:
        gateways = await started(stack, setting, BUDGET_VARIANTS)
        figures = await compared(setting, "budgets", [each.server for each in gateways], Counter())
    return section("budgets", "What keys and budgets cost", figures)


async def beside(setting: Setting) -> Section:
    """Another checkout, and this one, after a bare pass-through."""
    assert setting.beside is not None, "name the other checkout: --beside CHECKOUT"
    python = str(setting.beside.absolute() / ".venv" / "bin" / "python")
    before = [replace(each, name=f"before, {each.name}", python=python) for each in BESIDE_VARIANTS]
    now = [replace(each, name=f"now, {each.name}") for each in BESIDE_VARIANTS]
    pairs = [each for pair in zip(before, now, strict=True) for each in pair]
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(provider(setting.new_folder(), setting.cores))
        entering = bare(setting.new_folder(), setting.cores, upstream.url)
        yardstick = await stack.enter_async_context(entering)
        gateways = await started(stack, setting, pairs)
        servers = [yardstick, *(each.server for each in gateways)]
        figures = await compared(setting, "beside", servers, Counter())
    found = section("beside", f"Before and now; ratios are to {BARE}", figures)
    return replace(found, tables=[*found.tables, changes(figures)])


async def started(stack: AsyncExitStack, setting: Setting, variants: Sequence[Variant]) -> list[Gateway]:
    """Each of ``variants`` with a provider; those on a PostgreSQL that is not there are left out."""
    upstream = await stack.enter_async_context(provider(setting.new_folder(), setting.cores))
    databases = await stack.enter_async_context(postgres())
    found = []
    for variant in variants:
        if variant.wants_postgres and databases is None:
            continue
        dsn = await dsn_for(variant, databases)
        entering = gateway(variant, setting.place(), setting.cores.measured, upstream.url, dsn)
        found.append(await stack.enter_async_context(entering))
        await found[-1].server.prove()
    return found


async def dsn_for(variant: Variant, databases: Databases | None) -> str:
    """Of a database of its own, if it wants one."""
    return await databases.dsn() if databases is not None and variant.wants_postgres else ""


async def compared(
    setting: Setting, part: str, servers: Sequence[Server], called: Counter[str]
) -> dict[str, list[Figure]]:
    """Rounds of all in turn; ``called`` counts every call."""

    async def measure(server: Server) -> Figure:
        load = Load(server.url, server.request())
        rate = await calls_per_second(server, load, setting.cores, setting.seconds)
        ascending = await overheads_ms(server, RATE, setting.seconds)
        called[server.name] += load.answered + len(ascending)
        return Figure(rate, nearest_rank(ascending, 0.50), nearest_rank(ascending, 0.99))

    return await take_turns(part, servers, min(setting.rounds, ROUNDS), measure)


async def stop(gateway: Gateway, called: int) -> None:
    """SIGTERM, and the count: by its own report, and of a file also by the rows in it. Raises
    ``AssertionError``."""
    gateway.child.stop()
    status = await gateway.child.exit_status(STOP_S)
    report = await gateway.child.said("shutdown_report", STOP_S)
    rows, name = report["committed"] + report["duplicates"], gateway.server.name
    assert (status, rows) == (0, called), f"{name}: exit status {status}, {called} calls, {report}"
    file = gateway.folder / "usage.db"
    if file.exists():
        stored = len({row.id for row in read_rows(file)})
        assert stored == called, f"{name}: {stored} of {called} rows in {file}"


def flush_ms(folder: Path) -> float:
    """What the disk takes to keep a page for sure: the floor under `sync: full`."""
    times = []
    with (folder / "flush").open("wb", buffering=0) as file:
        for _ in range(FLUSHES):
            began = time.perf_counter()
            file.write(bytes(FLUSH_BYTES))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1000)
    return median(times)


def section(name: str, title: str, figures: Mapping[str, Sequence[Figure]]) -> Section:
    """The table; ratios are to its first line."""
    first = next(iter(figures.values()))
    header = ("", "calls/s", "calls per CPU second", "ratio", f"p50 at {RATE}/s", f"p99 at {RATE}/s")
    rows = [row(name, each, first) for name, each in figures.items()]
    raw = {name: [asdict(figure) for figure in each] for name, each in figures.items()}
    return Section(name, tables=[Table(title, header, rows)], raw=raw)


def row(name: str, figures: Sequence[Figure], first: Sequence[Figure]) -> tuple[str, ...]:
    rates = [each.rate for each in figures]
    return (
        f"`{name}`",
        number(middle(rates, per_s)),
        number(middle(rates, per_cpu_s)),
        f"{against(rates, [each.rate for each in first]).value:.2f}",
        f"{median(each.p50_ms for each in figures):.2f} ms",
        f"{median(each.p99_ms for each in figures):.2f} ms",
    )


def changes(figures: Mapping[str, Sequence[Figure]]) -> Table:
    """Each variant now to itself before, by calls per CPU second."""
    names = [each.name for each in BESIDE_VARIANTS if f"now, {each.name}" in figures]
    rows = [(name, f"{change(figures, name):.2f}") for name in names]
    return Table("Now to before", ("", "calls per CPU second"), rows)


def change(figures: Mapping[str, Sequence[Figure]], name: str) -> float:
    now, before = ([each.rate.per_cpu_s for each in figures[f"{when}, {name}"]] for when in ("now", "before"))
    return paired(now, before)
