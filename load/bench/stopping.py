"""A stop with a full queue, beside the bare driver, which is given the same rows in the same batches.

The driver writes one batch after the other over one connection, its values made ready before: that is all
that the database asks for them, and no core could be faster with one connection.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median
from typing import Any

from backends import BatchingOptions, BatchLogWriter, DeadLetterFile, UsageRecord
from backends import sinks as registry
from backends.sink import LogSink
from backends.testing import make_records

from .core import put
from .drivers import Bare, bare_asyncpg
from .figures import paired
from .setting import Setting, postgres, this_process_on
from .table import Section, Table, below, not_measured
from .turns import say

ROWS = 20_000
BATCH = 1000
MAX_RATIO = 1.5
STOP_S = 120.0
WHAT = f"stop with {ROWS:,} rows queued, postgres, of the bare driver's time for them"


async def stopping(setting: Setting) -> Section:
    """The part."""
    async with postgres() as databases:
        if databases is None:
            return Section(
                "stopping", [not_measured(WHAT, f"< {MAX_RATIO}", "no PostgreSQL on this machine")]
            )
        with this_process_on(setting.cores.measured):
            return await compared({"dsn": await databases.dsn()}, setting)


async def compared(options: dict[str, Any], setting: Setting) -> Section:
    stops: list[float] = []
    drivers: list[float] = []
    sink_class = registry.load("postgres")
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(sink_class.open(sink_class.Options.model_validate(options)))
        await sink.migrate()
        bare = await stack.enter_async_context(bare_asyncpg(options))
        for number in range(setting.rounds + 1):
            say("  stopping, " + (f"round {number} of {setting.rounds}" if number else "warm-up"))
            driver, stop = await by_driver(bare), await by_stop(sink, setting)
            if number:
                drivers.append(driver)
                stops.append(stop)
    return section(stops, drivers)


async def by_driver(bare: Bare) -> float:
    """Seconds of the driver for ``ROWS`` rows."""
    rows = make_records(ROWS)
    ready = [bare.ready(rows[start : start + BATCH]) for start in range(0, ROWS, BATCH)]
    began = time.perf_counter()
    for values in ready:
        await bare.insert(values)
    return time.perf_counter() - began


async def by_stop(sink: LogSink, setting: Setting) -> float:
    """Seconds from the order to stop until a writer that has ``ROWS`` rows waiting has committed all."""
    letters = DeadLetterFile(setting.new_folder() / "dead")
    options = BatchingOptions().with_defaults_of(sink.batching_defaults)
    writer = BatchLogWriter(sink, options, sink_name="postgres", dead_letters=letters)
    await writer.start()
    rows: Sequence[UsageRecord] = make_records(ROWS)
    await put(writer, rows, ROWS + 1)
    began = time.perf_counter()
    report = await writer.stop(STOP_S)
    seconds = time.perf_counter() - began
    letters.close()
    assert report.stats.counts.committed == ROWS, report
    return seconds


def section(stops: Sequence[float], drivers: Sequence[float]) -> Section:
    """Medians of the rounds."""
    line = below(WHAT, MAX_RATIO, paired(stops, drivers), unit=" times", why="its values made ready before")
    rows = [
        ("bare asyncpg, one batch after the other", f"{median(drivers):.2f} s"),
        ("stop of the writer", f"{median(stops):.2f} s"),
    ]
    table = Table(f"{ROWS:,} rows into postgres", ("", "time"), rows)
    return Section("stopping", [line], [table], {"stops_s": list(stops), "drivers_s": list(drivers)})
