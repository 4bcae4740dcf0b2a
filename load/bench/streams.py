"""What passing on a stream costs: CPU per chunk, without a pause of the provider, and with pauses.

Without a pause, a server that is slower than the provider finds several chunks in one read; how many is shown
beside it. With one, each chunk arrives alone, as a model's words do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from statistics import median

from .cores import used
from .generator import Load
from .ours import Variant, gateway
from .provider import CHUNKS, PAUSE_S
from .servers import Server, provider
from .setting import Setting
from .table import Section, Table, below, number
from .turns import take_turns
from .yardsticks import BARE, bare

CONNECTIONS = 10
PACED_CONNECTIONS, PACED_EACH = 60, 2
MAX_US = 20.0
SECONDS = 1.5
"""Times the length of any other measurement: a stream takes as long as many calls."""
GATEWAY = "gateway, sqlite"


@dataclass(frozen=True)
class Streaming:
    """One round. ``per_read``: chunks that the client found in one read, without a pause."""

    per_chunk_us: float
    paced_us: float
    per_s: float
    per_read: float


async def streams(setting: Setting) -> Section:
    """The part."""
    cores = setting.cores
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(provider(setting.new_folder(), cores))
        yardstick = await stack.enter_async_context(bare(setting.new_folder(), cores, upstream.url))
        entering = gateway(Variant(GATEWAY), setting.place(), cores.measured, upstream.url)
        servers = (yardstick, (await stack.enter_async_context(entering)).server)
        for server in servers:
            await server.prove_streams()

        async def measure(server: Server) -> Streaming:
            paced_us = await paced(server)
            return await unpaced(server, setting.seconds * SECONDS, paced_us)

        return section(await take_turns("streams", servers, setting.rounds, measure))


async def paced(server: Server) -> float:
    """CPU microseconds per chunk of so many streams with pauses, from their beginning to their end."""
    load = Load(server.url, server.request("slow", is_streamed=True))
    cpu_s = used(server.pid).cpu_s
    await load.some(PACED_CONNECTIONS, PACED_EACH)
    return (used(server.pid).cpu_s - cpu_s) / (load.answered * CHUNKS) * 1_000_000


async def unpaced(server: Server, seconds: float, paced_us: float) -> Streaming:
    """As many streams without pauses as it can do."""
    load = Load(server.url, server.request(is_streamed=True))
    async with load.closed_loop(CONNECTIONS):
        cpu_s, answered, reads = used(server.pid).cpu_s, load.answered, load.reads
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        cpu_s, wall = used(server.pid).cpu_s - cpu_s, time.perf_counter() - began
        streams, reads = max(1, load.answered - answered), load.reads - reads
    chunks = streams * CHUNKS
    return Streaming(cpu_s / chunks * 1_000_000, paced_us, streams / wall, chunks / max(1, reads))


def section(found: Mapping[str, Sequence[Streaming]]) -> Section:
    """Medians of the rounds."""
    per_chunk = {name: median(each.per_chunk_us for each in rounds) for name, rounds in found.items()}
    rows = [
        (
            name,
            f"{per_chunk[name]:.1f} us",
            f"{median(each.paced_us for each in rounds):.1f} us",
            number(median(each.per_s for each in rounds)),
            f"{median(each.per_read for each in rounds):.1f}",
        )
        for name, rounds in found.items()
    ]
    title = f"Streams of {CHUNKS} chunks, {CONNECTIONS} at once"
    paced = f"CPU per chunk, {PAUSE_S * 1000:.0f} ms between them"
    header = ("", "CPU per chunk, no delay", paced, "streams/s, no delay", "chunks in one read of the client")
    table = Table(title, header, rows)
    what = f"stream: CPU per chunk passed on, {CHUNKS}-chunk streams without delay"
    why = f"bare pass-through in this run: {per_chunk[BARE]:.1f}"
    line = below(what, MAX_US, per_chunk[GATEWAY], unit=" us", why=why)
    raw = {name: [asdict(each) for each in rounds] for name, rounds in found.items()}
    return Section("streams", [line], [table], raw)
