"""What a call takes longer with somebody between: calls at a steady rate, to a provider that takes its time.

The provider says in its answer how long it took, so that its own part is taken off call by call. The same is
asked of the provider directly: that is the floor, the generator and the two sockets.
"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from statistics import median

from .figures import nearest_rank
from .generator import Load
from .ours import Variant, gateway
from .provider import SLOW_S
from .servers import Server, provider
from .setting import Setting
from .table import Section, Table, below
from .turns import take_turns
from .yardsticks import bare

RATE = 300
SECONDS = 2.5
"""Times the length of any other measurement: a p99 needs many calls."""
P50_MS, P99_MS = 1.0, 5.0
SPARE_CONNECTIONS = 20
GATEWAY = "gateway, sqlite"
_TOOK_US = re.compile(rb'"id": *"chatcmpl-(\d+)"')


async def latency(setting: Setting) -> Section:
    """The part."""
    cores = setting.cores
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(provider(setting.new_folder(), cores))
        yardstick = await stack.enter_async_context(bare(setting.new_folder(), cores, upstream.url))
        entering = gateway(Variant(GATEWAY), setting.place(), cores.measured, upstream.url)
        ours = (await stack.enter_async_context(entering)).server

        async def measure(server: Server) -> list[float]:
            return await overheads_ms(server, RATE, setting.seconds * SECONDS, "slow", SLOW_S)

        found = await take_turns("latency", (upstream, yardstick, ours), min(setting.rounds, 3), measure)
    return section(found)


def section(found: dict[str, list[list[float]]]) -> Section:
    """Medians of the rounds' own quantiles."""

    def quantile(name: str, part: float) -> float:
        return median(nearest_rank(each, part) for each in found[name])

    def floor(part: float) -> str:
        nothing, bare_one = (quantile(name, part) for name in list(found)[:2])
        return f"with nothing between: {nothing:.2f} ms; the bare pass-through: {bare_one:.2f} ms"

    rows = [(name, *(f"{quantile(name, part):.2f} ms" for part in (0.50, 0.90, 0.99, 1.0))) for name in found]
    title = f"Overhead: {RATE} calls/s, open loop, a provider that takes {SLOW_S * 1000:.0f} ms"
    table = Table(title, ("", "p50", "p90", "p99", "longest"), rows)
    at = f"overhead, open loop, {RATE} calls/s, {SLOW_S * 1000:.0f} ms provider"
    lines = [
        below(f"{at}, p50", P50_MS, quantile(GATEWAY, 0.50), unit=" ms", why=floor(0.50)),
        below(f"{at}, p99", P99_MS, quantile(GATEWAY, 0.99), unit=" ms", why=floor(0.99)),
    ]
    raw = {name: {"p50": quantile(name, 0.50), "p99": quantile(name, 0.99)} for name in found}
    return Section("latency", lines, [table], raw)


async def overheads_ms(
    server: Server, rate: int, seconds: float, model: str = "fake", takes_s: float = 0.0
) -> list[float]:
    """How much longer than the provider each call took, ascending. ``takes_s`` is what the provider does."""
    load = Load(server.url, server.request(model))
    idle = int(rate * takes_s * 1.5) + SPARE_CONNECTIONS
    answers = await load.open_loop(rate, seconds, idle)
    return sorted(overhead_ms(*each) for each in answers)


def overhead_ms(took_s: float, body: bytes) -> float:
    """Raises ``ValueError``: the answer does not say how long the provider took."""
    if (found := _TOOK_US.search(body)) is None:
        raise ValueError(f"not the provider's answer: {body[:200]!r}")
    return took_s * 1000 - int(found[1]) / 1000
