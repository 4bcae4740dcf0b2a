"""The sink as an executable specification: what a sink promises, in as few lines as it takes.

Takes batches, keeps their rows in this process, and is gone with it: for tests, and for trying things out.
Refuses what no sink can be asked to store, integers beyond 64 bits and text that is no UTF-8.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from uuid import UUID

from msgspec import structs

from .errors import Rejection, SinkRowsRejected
from .numbers import NumberedRow, Run, repeated_of, runs_of
from .record import COLUMNS, Batch, Boot, UsageRecord
from .sink import Capabilities, Committed, SinkOptions
from .summary import summarise
from .usage_query import Cursor, SummaryQuery, SummaryRow, UsagePage, UsageQuery


@dataclass(slots=True)
class MemoryDatabase:
    """What the rows are kept in, by id."""

    rows: dict[UUID, UsageRecord] = field(default_factory=dict)
    boots: dict[UUID, Boot] = field(default_factory=dict)


_databases: dict[str, MemoryDatabase] = {}


def memory_database(name: str) -> MemoryDatabase:
    """The database of this process that is called ``name``; made when first asked for."""
    return _databases.setdefault(name, MemoryDatabase())


class MemoryOptions(SinkOptions):
    """``database`` names one that all sinks of this process share and that outlives them; without a name
    the sink has its own, for as long as it is open."""

    database: str | None = None


class MemorySink:
    """Rows in a dict. Every method is atomic: none of them waits for anything."""

    Options: ClassVar[type[SinkOptions]] = MemoryOptions
    capabilities: ClassVar[Capabilities] = Capabilities()
    batching_defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, database: MemoryDatabase) -> None:
        self.database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, options: MemoryOptions) -> AsyncIterator[Self]:
        name = options.database
        yield cls(MemoryDatabase() if name is None else memory_database(name))

    async def write(self, batch: Batch) -> Committed:
        if not _is_plain(batch.rows):
            refused = {index: why for index, row in enumerate(batch.rows) if (why := _refusal(row))}
            if refused:
                raise SinkRowsRejected(refused)
        before = len(self.database.rows)
        for row in batch.rows:
            self.database.rows.setdefault(row.id, row)
        new = len(self.database.rows) - before
        return Committed(new, len(batch.rows) - new)

    async def ping(self) -> None:
        return None

    def abort(self) -> None:
        return None

    async def migrate(self) -> None:
        return None

    async def record_boot(self, boot: Boot) -> None:
        known = self.database.boots.get(boot.id)
        self.database.boots[boot.id] = _merged(known, boot) if known else boot

    async def read_usage(self, query: UsageQuery) -> UsagePage:
        matching = (row for row in self.database.rows.values() if _matches(row, query))
        rows = sorted(matching, key=lambda row: (row.timestamp, row.id), reverse=True)
        page = tuple(rows[: query.limit])
        is_last = len(rows) <= query.limit
        return UsagePage(page, None if is_last else Cursor(page[-1].timestamp, page[-1].id))

    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        every = UsageQuery(start=query.start, end=query.end, filters=query.filters)
        return summarise((row for row in self.database.rows.values() if _matches(row, every)), query)

    async def read_boots(self) -> tuple[Boot, ...]:
        return tuple(self.database.boots.values())

    async def read_runs(self) -> tuple[Run, ...]:
        return runs_of(self.database.rows.values())

    async def read_repeated(self, boot_id: UUID, limit: int) -> tuple[NumberedRow, ...]:
        return repeated_of(self.database.rows.values(), boot_id, limit)


def _is_plain(rows: Sequence[UsageRecord]) -> bool:
    """Whether a look at each column as a whole tells that no row is refused, as it does of most batches."""
    return all(map(_is_plain_column, zip(*map(structs.astuple, rows), strict=True)))


def _is_plain_column(column: tuple[Any, ...]) -> bool:
    kinds = set(map(type, column)) - {type(None)}
    if kinds == {str}:
        return "".join(filter(None, column)).isascii()
    if kinds == {int}:
        numbers: list[int] = [0, *filter(None, column)]
        return min(numbers) >= -(2**63) and max(numbers) < 2**63
    return kinds.isdisjoint((str, int))


def _refusal(row: UsageRecord) -> Rejection | None:
    for name, value in zip(COLUMNS, structs.astuple(row), strict=True):
        kind = type(value)
        if kind is int and not -(2**63) <= value < 2**63:
            return Rejection("out_of_range", name)
        if kind is str and not value.isascii() and not _is_text(value):
            return Rejection("not_utf8", name)
    return None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _merged(known: Boot, told: Boot) -> Boot:
    """A start that arrives after the close changes nothing."""
    return Boot(
        id=known.id,
        started_at=known.started_at,
        closed_at=known.closed_at if told.closed_at is None else told.closed_at,
        last_seq=known.last_seq if told.last_seq is None else told.last_seq,
        abandoned=told.abandoned or known.abandoned,
    )


def _matches(row: UsageRecord, query: UsageQuery) -> bool:
    return (
        (query.start is None or row.timestamp >= query.start)
        and (query.end is None or row.timestamp < query.end)
        and (query.after is None or (row.timestamp, row.id) < (query.after.timestamp, query.after.id))
        and all(getattr(row, name) == value for name, value in query.filters)
    )
