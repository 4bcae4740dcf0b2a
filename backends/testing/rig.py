"""A writer over a sink that fails to order, for tests of the core or of a sink behind it.

Takes options and a sink; gives the running writer, and on leaving stops it and checks the ledger's equation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from ..admission import Place, Refused
from ..batching import BatchingOptions
from ..dead_letters import DeadLetter
from ..errors import DeadLettersUnavailable
from ..reports import StopReport
from ..sink import LogSink
from ..usage_query import UsageQuery
from ..writer import BatchLogWriter
from .faults import FaultySink
from .records import make_record

SEED = 20261124
"""Of every random choice in a rig, so that a failure comes again."""


@dataclass(slots=True)
class LetterBox:
    """Dead letters in a list; ``is_full`` refuses more."""

    letters: list[DeadLetter] = field(default_factory=list)
    is_full: bool = False

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """See ``DeadLetters.add``."""
        if self.is_full:
            raise DeadLettersUnavailable("the box is full")
        self.letters.extend(letters)

    def ids(self) -> list[UUID]:
        """The ids of the rows in the box."""
        return [letter.row.id for letter in self.letters]


@dataclass(slots=True)
class Rig:
    """A writer, the sink before it and the box beside it. ``given`` are the rows that got a place."""

    writer: BatchLogWriter
    sink: FaultySink
    box: LetterBox
    given: list[UUID] = field(default_factory=list)

    async def put(self, **fields: Any) -> UUID:
        """Put one record into a place of its own; its id. Raises ``AssertionError`` if it is refused."""
        return self.use(await self.place(), **fields)

    async def put_many(self, count: int, **fields: Any) -> list[UUID]:
        """Put so many records."""
        return [await self.put(**fields) for _ in range(count)]

    async def place(self) -> Place:
        """A place; there has to be one."""
        place = await self.writer.reserve()
        assert isinstance(place, Place), place
        return place

    def use(self, place: Place, **fields: Any) -> UUID:
        """Put a record into ``place``."""
        place.put(make_record(**{"id": place.id, **fields}))
        self.given.append(place.id)
        return place.id

    async def refusal(self) -> Refused:
        """Why there is no place; there must not be one."""
        refused = await self.writer.reserve()
        assert isinstance(refused, Refused), refused
        return refused

    async def stored(self) -> list[UUID]:
        """The ids of all rows in the sink, read through it."""
        page = await self.sink.read_usage(UsageQuery(limit=1_000_000))
        return [row.id for row in page.rows]

    def check(self) -> None:
        """The equation holds, and nothing is accepted but what was given."""
        counts = self.writer.stats().counts
        assert counts.unaccounted == 0, counts
        assert counts.accepted == len(self.given), counts

    async def check_end(self, report: StopReport) -> None:
        """After the stop every row is in the sink, in the box or abandoned, and counted so."""
        self.check()
        counts = report.stats.counts
        assert counts.queued == counts.in_flight == 0, counts
        assert counts.dead_lettered == len(self.box.letters)
        stored = await self.stored()
        assert len(stored) == len(set(stored)), "a row is stored twice"
        missing = set(self.given) - set(stored) - set(self.box.ids())
        assert len(missing) <= counts.abandoned, f"{len(missing)} rows are gone, {counts.abandoned} counted"


def build_writer(
    sink: LogSink, box: LetterBox, kind: type[BatchLogWriter] = BatchLogWriter, **options: Any
) -> BatchLogWriter:
    """A writer, not started, with seeded jitter. ``options`` are those of ``BatchingOptions``."""
    return kind(sink, BatchingOptions(**options), sink_name="rigged", dead_letters=box, rng=Random(SEED))


@asynccontextmanager
async def running(
    inner: LogSink | None = None, *, kind: type[BatchLogWriter] = BatchLogWriter, **options: Any
) -> AsyncIterator[Rig]:
    """A rig whose writer runs. ``inner`` is the real sink (default: memory). Leaving heals the sink, stops
    the writer and checks the end, unless the test did."""
    sink = FaultySink(inner)
    box = LetterBox()
    rig = Rig(build_writer(sink, box, kind, **options), sink, box)
    await rig.writer.start()
    yield rig
    sink.heal()
    sink.aborted.set()
    await rig.check_end(await rig.writer.stop())


async def until(is_so: Callable[[], bool]) -> None:
    """Return once ``is_so()``. For the virtual clock, where looking again costs nothing."""
    while not is_so():  # noqa: ASYNC110  # what is waited for has no event of its own
        await asyncio.sleep(0.01)
