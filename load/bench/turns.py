"""Servers in turn, round after round, so that the machine's moods meet all of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from .cores import TICKS, Cores, used
from .figures import Rate
from .generator import AnswerFailed, Load
from .servers import Server

Figure = TypeVar("Figure")

CONNECTIONS = 100


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True)


async def take_turns(
    part: str, servers: Sequence[Server], rounds: int, measure: Callable[[Server], Awaitable[Figure]]
) -> dict[str, list[Figure]]:
    """``rounds`` of each, after one round that does not count. Every other round goes backwards."""
    figures: dict[str, list[Figure]] = {each.name: [] for each in servers}
    for number in range(rounds + 1):
        say(f"  {part}, " + (f"round {number} of {rounds}" if number else "warm-up"))
        for server in servers if number % 2 else reversed(servers):
            try:
                figure = await measure(server)
            except AnswerFailed as failure:
                raise AnswerFailed(f"{server.name}: {failure}") from failure
            if number:
                figures[server.name].append(figure)
    return figures


async def calls_per_second(server: Server, load: Load, cores: Cores, seconds: float) -> Rate:
    """As many calls of ``load`` as ``server`` can do over ``CONNECTIONS`` connections."""
    async with load.closed_loop(CONNECTIONS):
        before, all_before = used(server.pid), used(os.getpid())
        answered, began = load.answered, time.perf_counter()
        await asyncio.sleep(seconds)
        after, all_after = used(server.pid), used(os.getpid())
        calls, wall = load.answered - answered, time.perf_counter() - began
    cpu_s = after.cpu_s - before.cpu_s
    load_s = all_after.cpu_s - all_before.cpu_s - cpu_s  # the server is a child of this process, as all are
    return Rate(
        per_s=calls / wall,
        per_cpu_s=calls / max(cpu_s, 1 / TICKS),
        busy=cpu_s / wall,
        load_busy=load_s / wall / len(cores.load),
        rss_bytes=after.rss_bytes,
    )
