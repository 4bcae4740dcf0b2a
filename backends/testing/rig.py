"""A writer over a sink that fails to order, for tests of the core or of a sink behind it.

Takes options and a sink; gives the running writer, and on leaving stops it and checks the end: the ledger's
equation, and that every row is in the sink, as it was given, or in the box, or counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias
from uuid import UUID

from ..batching import BatchingOptions
from ..dead_letters import DeadLetter
from ..errors import DeadLettersUnavailable
from ..place import Place, Refused
from ..record import Batch, Boot, UsageRecord, stamped
from ..reports import StopReport
from ..sanitise import sanitise
from ..sink import LogSink
from ..spool import Spool
from ..usage_query import UsageQuery
from ..writer import BatchLogWriter
from .faults import FaultySink
from .records import make_record

SEED = 20261124
"""Of every random choice in a rig, so that a failure comes again."""

ReadRows: TypeAlias = Callable[[], Awaitable[Iterable[UsageRecord]]]
"""Gives every stored row."""


class Hasty(Random):
    """Jitter for tests in real time: a hundredth of every range, so that a retry costs milliseconds."""

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) / 100


@dataclass(slots=True)
class LetterBox:
    """Dead letters in a list; ``is_full`` refuses more. ``marks`` are rows to be sent again, ``boots`` what
    was kept of a boot."""

    letters: list[DeadLetter] = field(default_factory=list)
    is_full: bool = False
    marks: list[UUID] = field(default_factory=list)
    boots: dict[UUID, Boot] = field(default_factory=dict)
    trouble: str | None = None

    def open(self, owner: UUID | None = None) -> frozenset[UUID]:
        """See ``DeadLetters.open``."""
        return frozenset(self.ids())

    def take_found(self) -> frozenset[UUID]:
        """See ``DeadLetters.take_found``; all was told at the opening."""
        return frozenset()

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """See ``DeadLetters.add``."""
        if self.is_full:
            raise DeadLettersUnavailable("the box is full")
        self.remove([letter.row.id for letter in letters])
        self.letters.extend(letters)

    def marked(self) -> Batch | None:
        """See ``DeadLetters.marked``."""
        rows = tuple(letter.row for letter in self.letters if letter.row.id in self.marks)
        return Batch.of(rows) if rows else None

    def remove(self, rows: Iterable[UUID]) -> None:
        """See ``DeadLetters.remove``."""
        gone = set(rows)
        self.letters = [letter for letter in self.letters if letter.row.id not in gone]
        self.marks = [row_id for row_id in self.marks if row_id not in gone]

    def adopt(self) -> frozenset[UUID]:
        """See ``DeadLetters.adopt``; nobody else has a box."""
        return frozenset()

    def keep_boot(self, boot: Boot) -> None:
        """See ``DeadLetters.keep_boot``."""
        self.boots[boot.id] = boot

    def kept_boots(self) -> Sequence[Boot]:
        """See ``DeadLetters.kept_boots``."""
        return list(self.boots.values())

    def drop_boot(self, boot_id: UUID) -> None:
        """See ``DeadLetters.drop_boot``."""
        self.boots.pop(boot_id, None)

    def ids(self) -> list[UUID]:
        """The ids of the rows in the box."""
        return [letter.row.id for letter in self.letters]


@dataclass(slots=True)
class Rig:
    """A writer, the sink before it and the box beside it. ``given`` are the ids of the rows that got a
    place, ``records`` what was put into those places; ``read`` looks into the database around the sink."""

    writer: BatchLogWriter
    sink: FaultySink
    box: LetterBox
    read: ReadRows | None = None
    given: list[UUID] = field(default_factory=list)
    records: dict[UUID, UsageRecord] = field(default_factory=dict)

    async def put(self, **fields: Any) -> UUID:
        """Put one record into a place of its own; its id. Raises ``AssertionError`` if it is refused."""
        return self.use(await self.place(), **fields)

    async def put_many(self, count: int, **fields: Any) -> list[UUID]:
        """Put so many records."""
        return [await self.put(**fields) for _ in range(count)]

    async def put_row(self, row: UsageRecord) -> UUID:
        """Put ``row`` into a place of its own, which decides its id."""
        return self.hand(await self.place(), row)

    async def place(self) -> Place:
        """A place; there has to be one."""
        place = await self.writer.reserve()
        assert isinstance(place, Place), place
        return place

    def use(self, place: Place, **fields: Any) -> UUID:
        """Put a record into ``place``."""
        return self.hand(place, make_record(**{"id": place.id, **fields}))

    def hand(self, place: Place, row: UsageRecord) -> UUID:
        """Put ``row`` into ``place``."""
        place.put(row)
        self.given.append(place.id)
        self.records[place.id] = row
        return place.id

    async def refusal(self) -> Refused:
        """Why there is no place; there must not be one."""
        refused = await self.writer.reserve()
        assert isinstance(refused, Refused), refused
        return refused

    async def rows(self) -> list[UsageRecord]:
        """All rows in the sink, read around it, or through it when nobody said how else."""
        if self.read is not None:
            return list(await self.read())
        page = await self.sink.read_usage(UsageQuery(limit=1_000_000))
        return list(page.rows)

    async def stored(self) -> list[UUID]:
        """The ids of all rows in the sink."""
        return [row.id for row in await self.rows()]

    def check(self) -> None:
        """The equation holds, and nothing is accepted but what was given."""
        counts = self.writer.stats().counts
        assert counts.unaccounted == 0, counts
        assert counts.accepted - counts.recovered == len(self.given), counts

    async def check_end(self, report: StopReport) -> None:
        """After the stop every row is in the sink, in the box or abandoned, and counted so."""
        self.check()
        counts = report.stats.counts
        assert counts.queued == counts.in_flight == 0, counts
        assert counts.dead_lettered == len(self.box.letters)
        rows = await self.rows()
        stored = {row.id for row in rows}
        if self.sink.capabilities.dedup == "immediate":
            assert len(rows) == len(stored), "a row is stored twice"
        assert stored <= set(self.given), "a row that nobody gave"
        missing = set(self.given) - stored - set(self.box.ids())
        assert len(missing) <= counts.abandoned, f"{len(missing)} rows are gone, {counts.abandoned} counted"
        self._check_boot(rows, counts.accepted)

    def _check_boot(self, rows: Iterable[UsageRecord], accepted: int) -> None:
        for row in rows:
            assert row.boot_id == self.writer.boot_id and 0 < row.seq <= accepted, row

    def expected(self, found: UsageRecord) -> UsageRecord:
        """The record that ``found`` was made from, sanitised, under the identity that the ledger gave it."""
        assert found.boot_id is not None
        return stamped(sanitise(self.records[found.id]), found.id, found.boot_id, found.seq)


def build_writer(
    sink: LogSink,
    box: LetterBox,
    kind: type[BatchLogWriter] = BatchLogWriter,
    rng: Random | None = None,
    spool: Spool | None = None,
    **options: Any,
) -> BatchLogWriter:
    """A writer, not started, with seeded jitter. ``options`` are those of ``BatchingOptions``."""
    rng, limits = rng or Random(SEED), BatchingOptions(**options)
    return kind(sink, limits, sink_name="rigged", dead_letters=box, rng=rng, spool=spool)


@asynccontextmanager
async def running(
    inner: LogSink | None = None,
    *,
    kind: type[BatchLogWriter] = BatchLogWriter,
    read: ReadRows | None = None,
    rng: Random | None = None,
    **options: Any,
) -> AsyncIterator[Rig]:
    """A rig whose writer runs. ``inner`` is the real sink (default: memory), ``read`` gives its rows around
    it. Leaving heals the sink, stops the writer and checks the end, unless the test did."""
    sink = FaultySink(inner)
    box = LetterBox()
    rig = Rig(build_writer(sink, box, kind, rng, **options), sink, box, read)
    await rig.writer.start()
    try:
        yield rig
    except BaseException:
        rig.writer.close_now()  # the test has failed: its error is the one to see
        sink.aborted.set()
        raise
    sink.heal()
    sink.aborted.set()
    await rig.check_end(await rig.writer.stop())


async def until(is_so: Callable[[], bool], within_s: float = 600.0) -> None:
    """Return once ``is_so()``; raises ``AssertionError`` after ``within_s`` seconds of the loop's time. For
    the virtual clock, where looking again costs nothing."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + within_s
    while not is_so():  # what is waited for has no event of its own
        assert loop.time() < give_up_at, f"not within {within_s:.0f} s"
        await asyncio.sleep(0.01)
