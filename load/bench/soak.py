"""Ten minutes of calls and streams at a steady rate: does the gateway's memory stay where it was?

Only when it is named: TALLYGATE_BENCH_PARTS=soak, TALLYGATE_BENCH_SOAK_MINUTES for another length.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median

from .calls import MB
from .cores import used
from .generator import Load
from .ours import Variant, gateway
from .servers import Server, provider
from .setting import Setting
from .table import Line, Section, Table
from .turns import say

MINUTES = 10.0
SETTLED = 0.2
"""After this part of the time caches are warm and heaps have their size."""
TAIL = 0.2
FLAT = 1.05
"""The last part's memory may be so much of that when it had settled."""
CALLS_PER_S, STREAMS_PER_S = 300, 10
LOOK_S = 1.0
SAY_S = 30.0
IDLE = 20


async def soak(setting: Setting) -> Section:
    """The part."""
    seconds = float(os.environ.get("TALLYGATE_BENCH_SOAK_MINUTES") or MINUTES) * 60
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(provider(setting.new_folder(), setting.cores))
        entering = gateway(Variant("gateway, sqlite"), setting.place(), setting.cores.measured, upstream.url)
        server = (await stack.enter_async_context(entering)).server
        await server.prove()
        await server.prove_streams()
        calls, streams = (
            Load(server.url, server.request()),
            Load(server.url, server.request(is_streamed=True)),
        )
        seen, *_ = await asyncio.gather(
            watched(server, seconds),
            calls.open_loop(CALLS_PER_S, seconds, IDLE),
            streams.open_loop(STREAMS_PER_S, seconds, IDLE),
        )
    return section(seen, seconds)


async def watched(server: Server, seconds: float) -> list[float]:
    """The gateway's memory in MB, again and again."""
    seen: list[float] = []
    began = said = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        seen.append(used(server.pid).rss_bytes / MB)
        if now > said + SAY_S:
            said = now
            say(f"  soak, {(now - began) / 60:.1f} minutes: {seen[-1]:.1f} MB")
        await asyncio.sleep(LOOK_S)
    return seen


def section(seen: Sequence[float], seconds: float) -> Section:
    """What it held once it had settled, and in the end."""
    settled = median(parted(seen, SETTLED, SETTLED + TAIL))
    last = median(parted(seen, 1 - TAIL, 1))
    calls = f"{CALLS_PER_S} calls/s and {STREAMS_PER_S} streams/s"
    what = f"RSS after {seconds / 60:g} minutes' soak"
    why = f"{settled:.1f} MB, then {last:.1f} MB; {calls}, sqlite"
    line = Line(what, f"flat (< {FLAT:g} times)", f"{last / settled:.3f} times", last < FLAT * settled, why)
    rows = [
        (f"{part:.0%} of the time", f"{median(parted(seen, part - 0.1, part)):.1f} MB")
        for part in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    table = Table(f"The gateway's memory, {calls}, {seconds / 60:g} minutes", ("", "RSS"), rows)
    return Section("soak", [line], [table], {"rss_mb": list(seen)})


def parted(seen: Sequence[float], begin: float, end: float) -> Sequence[float]:
    """Those from one part of the time to another; one at least."""
    first = min(int(begin * len(seen)), len(seen) - 1)
    return seen[first : max(first + 1, int(end * len(seen)))]
