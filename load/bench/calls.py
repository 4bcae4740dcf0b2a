"""Calls per second of the gateway beside its yardsticks, all of them on one core in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TypeAlias

from processes import ChildFailed

from .figures import Rate, against, busy, is_saturated, load_busy, middle, per_cpu_s, per_s
from .generator import Load
from .ours import Gateway, Variant, gateway
from .servers import Server, provider
from .setting import MISSING, Setting, postgres
from .table import Line, Section, Table, at_least, below, not_measured, number
from .turns import CONNECTIONS, calls_per_second, say, take_turns
from .variants import dsn_for, stop
from .yardsticks import BARE, LITELLM, PORTKEY, YARDSTICKS, LeftOut, bare

Rates: TypeAlias = Mapping[str, Sequence[Rate]]

SQLITE, POSTGRES = "gateway, sqlite", "gateway, postgres"
NOOP, WRITE_AHEAD = "gateway, noop", "gateway, sqlite, write_ahead"
VARIANTS = (
    Variant(SQLITE),
    Variant(POSTGRES, "batch:postgres"),
    Variant(NOOP, "noop"),
    Variant(WRITE_AHEAD, spool={"mode": "write_ahead"}),
)
PEER_GOALS = {PORTKEY: (4.0, 7.0), LITELLM: (35.0, 60.0)}
"""How many times their calls; with `fast`."""
FAST_LEFT_OUT = (
    "there is no such extra: pyreqwest 0.15.1, the client that came nearest, made plain calls 1.1 to 1.27"
    " times as fast and streams 1.3 to 4.3 times as dear, and failed 4 of 68 tests of the provider's client"
)
REFERENCE_PER_S, REFERENCE_GOALS = 30.0, (120.0, 200.0)
"""The reference gateway with its batch writer, as its own figures have it."""
NOT_FULL = (
    "Their own core was not full (that of the load was, or another program ran on it), so that it is their"
    " calls per CPU second that are compared"
)
MAX_RSS_MB = 120
MB = 1024 * 1024


async def calls(setting: Setting) -> Section:
    """The part. In the end the gateways are stopped and their rows are counted: one for each call, or the
    figures are not what they say that they are."""
    left_out: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        others, gateways = await started(stack, setting, left_out)
        servers = [*others, *(each.server for each in gateways)]
        called: Counter[str] = Counter(each.name for each in servers)  # to prove itself

        async def measure(server: Server) -> Rate:
            load = Load(server.url, server.request())
            rate = await calls_per_second(server, load, setting.cores, setting.seconds)
            called[server.name] += load.answered
            return rate

        rates = await take_turns("calls", servers, setting.rounds, measure)
        for each in gateways:
            if each.server.name != NOOP:
                await stop(each, called[each.server.name])
    raw = {name: [asdict(rate) for rate in each] for name, each in rates.items()}
    return Section("calls", list(lines(rates, left_out)), [table(rates, left_out)], raw)


async def started(
    stack: AsyncExitStack, setting: Setting, left_out: dict[str, str]
) -> tuple[list[Server], list[Gateway]]:
    """Yardsticks and gateways, as many as there are. ``left_out`` hears why somebody is not."""
    cores = setting.cores
    upstream = await stack.enter_async_context(provider(setting.new_folder(), cores))
    servers = [await stack.enter_async_context(bare(setting.new_folder(), cores, upstream.url))]
    for name, start in YARDSTICKS.items():
        try:
            servers.append(await stack.enter_async_context(start(setting.new_folder(), cores, upstream.url)))
        except (LeftOut, ChildFailed) as error:
            left_out[name] = str(error)
            say(f"  left out: {error}")
    databases = await stack.enter_async_context(postgres())
    gateways: list[Gateway] = []
    for variant in VARIANTS:
        if variant.wants_postgres and databases is None:
            left_out[variant.name] = MISSING
            continue
        dsn = await dsn_for(variant, databases)
        entering = gateway(variant, setting.place(), cores.measured, upstream.url, dsn)
        gateways.append(await stack.enter_async_context(entering))
    for server in (*servers, *(each.server for each in gateways)):
        await server.prove()
    return servers, gateways


def lines(rates: Rates, left_out: Mapping[str, str]) -> list[Line]:
    """The promises about calls."""
    what = "calls against the bare aiohttp pass-through"
    found = [
        compared(rates, left_out, f"{what}, sqlite", 0.75, SQLITE, BARE),
        compared(rates, left_out, f"{what}, postgres", 0.75, POSTGRES, BARE),
        not_measured(f"{what}, both with `fast`", ">= 1.30", FAST_LEFT_OUT),
    ]
    for peer, (goal, fast_goal) in PEER_GOALS.items():
        found.append(compared(rates, left_out, f"against {peer}", goal, SQLITE, peer))
        found.append(not_measured(f"against {peer}, `fast`", f">= {number(fast_goal)}", "as above"))
    found += against_reference(rates)
    found.append(compared(rates, left_out, "logging on against `noop`", 0.9, SQLITE, NOOP))
    found.append(compared(rates, left_out, "`write_ahead` against `noop`", 0.75, WRITE_AHEAD, NOOP))
    found.append(memory(rates))
    return found


def compared(
    rates: Rates, left_out: Mapping[str, str], what: str, goal: float, ours: str, theirs: str
) -> Line:
    """``ours`` to ``theirs``, by the rounds' own ratios."""
    for name in (ours, theirs):
        if name not in rates:
            return not_measured(what, f">= {number(goal)}", left_out.get(name, "not built"))
    ratio = against(rates[ours], rates[theirs])
    return at_least(what, goal, ratio.value, why=f"by {ratio.by}")


def against_reference(rates: Rates) -> list[Line]:
    """Beside a figure from another machine."""
    what = "against the reference gateway's own figure, 0.03k calls/s"
    goal, fast_goal = REFERENCE_GOALS
    reached = middle(rates[SQLITE], per_s) / REFERENCE_PER_S
    return [
        at_least(what, goal, reached, why="by calls/s; its figure is from another machine"),
        not_measured(f"{what}, `fast`", f">= {number(fast_goal)}", "as above"),
    ]


def memory(rates: Rates) -> Line:
    """The most that any variant with rows held while all connections were busy."""
    named = {
        name: max(each.rss_bytes for each in rates[name]) / MB for name in (SQLITE, POSTGRES) if name in rates
    }
    largest = max(named, key=lambda name: named[name])
    what = f"RSS at {CONNECTIONS} connections"
    return below(what, MAX_RSS_MB, named[largest], unit=" MB", why=f"the larger one: {largest}")


def table(rates: Rates, left_out: Mapping[str, str]) -> Table:
    """Everyone's figures."""
    header = ("", "calls/s", "calls per CPU second", "of bare", "own core busy", "load's core busy", "RSS")
    rows = [row(name, each, rates[BARE]) for name, each in rates.items()]
    notes = [f"Left out: {name} ({why})." for name, why in left_out.items()]
    if short := [name for name, each in rates.items() if not is_saturated(each)]:
        notes.append(f"{NOT_FULL}: {'; '.join(short)}.")
    title = f"Calls, {CONNECTIONS} connections, no provider delay"
    return Table(title, header, rows, notes)


def row(name: str, rates: Sequence[Rate], bare_rates: Sequence[Rate]) -> tuple[str, ...]:
    ratio = against(rates, bare_rates)
    return (
        name,
        number(middle(rates, per_s)),
        number(middle(rates, per_cpu_s)),
        f"{ratio.value:.2f}",
        f"{middle(rates, busy):.0%}",
        f"{middle(rates, load_busy):.0%}",
        f"{middle(rates, lambda rate: rate.rss_bytes) / MB:,.0f} MB",
    )
