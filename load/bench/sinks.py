"""Rows per second into each sink beside its bare driver.

One batch after the other, each acknowledged by the server before the next is sent; sink and driver take turns
on one table, with the same statements and the same durability. The sink is given usage rows, the driver
values that were made ready for it before, so that the ratio shows all that the sink adds: checks, its pool,
translation, its tasks. The last column adds to the driver's time that of making those values.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

from backends import sinks as registry
from backends.record import Batch
from backends.testing import make_records

from .drivers import ENTRANTS, Bare, Entrant, Insert, running
from .setting import Setting, is_missing, this_process_on
from .table import Line, Section, Table, at_least, not_measured
from .turns import say

ROWS = 1000
GOAL = 0.7
LEAST_S = 1.0
"""How long sink and driver write in turn in each round, the making of rows not counted, ..."""
LEAST_PAIRS = 4
"""... and how many batches each of them writes at least."""


@dataclass(frozen=True)
class Figures:
    """Medians, in seconds for a batch of ``ROWS`` rows. ``ready``: to make the driver's values of them."""

    ready: float
    driver: float
    sink: float

    @property
    def ratio(self) -> float:
        """Of the driver's speed, its values ready."""
        return self.driver / self.sink

    @property
    def ratio_from_rows(self) -> float:
        """Of the driver's speed, the making of its values counted."""
        return (self.ready + self.driver) / self.sink


async def sinks(setting: Setting) -> Section:
    """The part."""
    found: dict[str, Figures] = {}
    left_out: dict[str, str] = {}
    for entrant in ENTRANTS:
        say(f"  sinks, {entrant.name}")
        if find_spec(entrant.driver) is None:
            left_out[entrant.name] = f"pip install 'tallygate[{entrant.sink}]'"
            continue
        try:
            with running(entrant, setting.new_folder()) as options, this_process_on(setting.cores.measured):
                found[entrant.name] = await measured(entrant, options, setting)
        except Exception as error:
            if not is_missing(error):
                raise
            left_out[entrant.name] = str(error)
    return section(found, left_out)


async def measured(entrant: Entrant, options: Mapping[str, Any], setting: Setting) -> Figures:
    sink_class = registry.load(entrant.sink)
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(sink_class.open(sink_class.Options.model_validate(options)))

        async def write(batch: Batch) -> None:
            committed = await sink.write(batch)
            assert committed.new == len(batch.rows), committed

        await write(Batch.of(make_records(1)))  # makes the tables
        bare: Bare = await stack.enter_async_context(entrant.open_bare(options))
        await bare.insert(bare.ready(make_records(1)))
        return await compared(bare, write, LEAST_S * setting.seconds)


async def compared(bare: Bare, write: Insert, least_s: float) -> Figures:
    ready, drivers, sink = list[float](), list[float](), list[float]()
    while len(sink) < LEAST_PAIRS or sum(drivers) + sum(sink) < least_s:
        rows = make_records(ROWS)
        began = time.perf_counter()
        values = bare.ready(rows)
        ready.append(time.perf_counter() - began)
        batch = Batch.of(make_records(ROWS))
        turns = [(drivers, bare.insert, values), (sink, write, batch)]
        for seconds, insert, given in turns if len(sink) % 2 else reversed(turns):
            began = time.perf_counter()
            await insert(given)
            seconds.append(time.perf_counter() - began)
    return Figures(*map(median, (ready, drivers, sink)))


def section(found: Mapping[str, Figures], left_out: Mapping[str, str]) -> Section:
    """A promise for each sink."""
    header = ("", "bare driver, rows/s", "sink, rows/s", "ratio", "ratio, its values made of rows")
    rows = [(name, *cells(each)) for name, each in found.items()]
    notes = [f"Left out: {name} ({why})." for name, why in left_out.items()]
    lines = [line(each.name, found, left_out) for each in ENTRANTS]
    table = Table(f"Sinks beside their bare drivers, batches of {ROWS:,} rows", header, rows, notes)
    return Section("sinks", lines, [table], {name: asdict(each) for name, each in found.items()})


def cells(figures: Figures) -> tuple[str, ...]:
    rates = (f"{ROWS / figures.driver:,.0f}", f"{ROWS / figures.sink:,.0f}")
    return (*rates, f"{figures.ratio:.2f}", f"{figures.ratio_from_rows:.2f}")


def line(name: str, found: Mapping[str, Figures], left_out: Mapping[str, str]) -> Line:
    what = f"sink {name} against its bare driver at {ROWS:,} rows"
    if name not in found:
        return not_measured(what, f">= {GOAL}", left_out[name])
    why = f"with the driver's values made of rows: {found[name].ratio_from_rows:.2f}"
    return at_least(what, GOAL, found[name].ratio, why=why)
