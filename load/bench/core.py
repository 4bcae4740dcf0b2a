"""The batching core alone: rows made beforehand, into the memory sink, in this process.

How many a second, and what one costs when the queue is short and when it is long.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from backends import BatchingOptions, BatchLogWriter, DeadLetterFile, Place, UsageRecord, sinks
from backends.testing import make_records

from .setting import Setting, this_process_on
from .table import Line, Section, Table, at_least
from .turns import say

ROWS = 100_000
CHUNK = 1000
"""Rows put before the loop has its turn."""
GOAL_PER_S = 200_000
LENGTHS = (1_000, 10_000, 100_000)
FLAT = 1.5
"""The longest queue may cost so much per row of what the shortest costs."""
STOP_S = 60.0
ROOM = BatchingOptions(max_queue_rows=max(LENGTHS) + CHUNK, max_queue_bytes=2**34)


async def core(setting: Setting) -> Section:
    """The part."""
    rates: list[float] = []
    costs: dict[int, list[float]] = {length: [] for length in LENGTHS}
    with this_process_on(setting.cores.measured), frozen(make_records(ROWS)) as rows:
        for number in range(setting.rounds + 1):
            say("  core, " + (f"round {number} of {setting.rounds}" if number else "warm-up"))
            rate = ROWS / await seconds_for(rows, setting.new_folder(), CHUNK)
            found = {each: await seconds_for(rows[:each], setting.new_folder(), each) for each in LENGTHS}
            if number:
                rates.append(rate)
                for length, seconds in found.items():
                    costs[length].append(seconds / length)
    return section(rates, costs)


@contextmanager
def frozen(rows: Sequence[UsageRecord]) -> Iterator[Sequence[UsageRecord]]:
    """``rows``, which the garbage collector does not look at: a gateway has no such heap beside it."""
    gc.collect()
    gc.freeze()
    try:
        yield rows
    finally:
        gc.unfreeze()


async def seconds_for(rows: Sequence[UsageRecord], folder: Path, chunk: int) -> float:
    """CPU seconds until all of ``rows`` are committed, ``chunk`` of them put at once. Nothing is waited for,
    so on a machine that is ours alone they are the clock's."""
    sink_class = sinks.load("memory")
    async with sink_class.open(sink_class.Options()) as sink:
        letters = DeadLetterFile(folder / "dead")
        options = ROOM.with_defaults_of(sink.batching_defaults)
        writer = BatchLogWriter(sink, options, sink_name="memory", dead_letters=letters)
        await writer.start()
        gc.collect()
        began = time.process_time()
        await put(writer, rows, chunk)
        report = await writer.stop(STOP_S)
        seconds = time.process_time() - began
        letters.close()
    assert report.stats.counts.committed == len(rows), report
    return seconds


async def put(writer: BatchLogWriter, rows: Sequence[UsageRecord], chunk: int) -> None:
    """All of ``rows``, as calls would: the collector has its turn after each ``chunk``."""
    for number, row in enumerate(rows, 1):
        place = await writer.reserve(row.id)
        assert isinstance(place, Place), place
        place.put(row)
        if number % chunk == 0:
            await asyncio.sleep(0)


def section(rates: Sequence[float], costs: dict[int, list[float]]) -> Section:
    """Medians of the rounds."""
    per_row = {length: median(each) * 1_000_000 for length, each in costs.items()}
    rows = [(f"{length:,} rows waiting", f"{cost:.1f} microseconds") for length, cost in per_row.items()]
    table = Table("The core alone, into `memory`: one row, from the queue to the sink", ("", "per row"), rows)
    growth = per_row[LENGTHS[-1]] / per_row[LENGTHS[0]]
    what = f"per-row cost as the queue grows from {LENGTHS[0]:,} to {LENGTHS[-1]:,}"
    flat = Line(what, f"flat (< {FLAT:g} times)", f"{growth:.2f} times", growth < FLAT)
    alone = "core alone into `memory`, rows made beforehand"
    speed = at_least(alone, GOAL_PER_S, median(rates), unit=" rows/s", why="by CPU seconds; it never waits")
    return Section("core", [speed, flat], [table], {"rows_per_s": rates, "s_per_row": costs})
