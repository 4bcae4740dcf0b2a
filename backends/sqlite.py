"""The embedded default: usage rows in one SQLite file, beside the gateway, without a server.

Takes batches, each one transaction; gives ``Committed`` once it is on the disk. The file is opened, and its
schema made or checked, by the first call that needs it, so a file that is gone or locked delays no start.
``synchronous=FULL``: a returned ``write`` survives kill -9 and a power cut alike. NORMAL would survive only
the former, and saves some tenths of a millisecond per batch on a disk that does not lie about its flushes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import Field, field_validator

from .codec import plain_rows, timestamp_text
from .errors import SinkBatchRejected
from .lane import DatabaseFile, Lane, close_lanes, uses
from .numbers import NumberedRow, Run
from .record import COLUMNS, Batch, Boot, UsageRecord
from .sink import Capabilities, Committed, SinkOptions
from .sqlite_audit import read_boots, read_repeated, read_runs
from .sqlite_file import Schema, connect, error_code, transaction, translated
from .sqlite_reads import page_statement, read_page, read_summary, summary_statements
from .statements import statements
from .usage_query import SummaryQuery, SummaryRow, UsagePage, UsageQuery

_SQL = statements("sqlite")
_SCHEMA = Schema(1, _SQL, {"usage_logs": COLUMNS})


class SqliteOptions(SinkOptions):
    """``path``: the database file; its folder is made when missing. ``busy_timeout_s``: how long a call
    waits while another process writes, and the longest that closing takes. ``migrate``: make or upgrade the
    schema when the file is first used; without it, only ``migrate()`` does."""

    path: Path = Path("./data/usage.db")
    busy_timeout_s: float = Field(default=1.0, gt=0, le=60)
    migrate: bool = True

    @field_validator("path")
    @classmethod
    def _is_a_file(cls, path: Path) -> Path:
        if str(path) in (".", ":memory:") or str(path).startswith("file:"):
            raise ValueError("must be the path of a file (rows without a file: the sink memory)")
        return path


class SqliteSink:
    """One thread writes, another one reads, a third migrates when told to, each with a connection that no
    other thread uses."""

    Options: ClassVar[type[SinkOptions]] = SqliteOptions
    capabilities: ClassVar[Capabilities] = Capabilities()
    batching_defaults: ClassVar[Mapping[str, Any]] = {"flush_concurrency": 1}

    def __init__(self, options: SqliteOptions) -> None:
        self._file = DatabaseFile(options.path)
        self._patience_s = options.busy_timeout_s
        self._writer = self._lane("sqlite-writer", migrates=options.migrate)
        self._reader = self._lane("sqlite-reader", migrates=options.migrate)
        self._migrator = self._lane("sqlite-migrator", migrates=True)

    def _lane(self, name: str, *, migrates: bool) -> Lane[sqlite3.Connection]:
        opening = partial(
            connect, self._file.path, _SCHEMA, busy_timeout_s=self._patience_s, migrates=migrates
        )
        return Lane(name, self._file, opening, translated)

    @classmethod
    @asynccontextmanager
    async def open(cls, options: SqliteOptions) -> AsyncIterator[Self]:
        sink = cls(options)
        try:
            yield sink
        finally:
            await close_lanes(sink._lanes, options.busy_timeout_s)

    async def write(self, batch: Batch) -> Committed:
        """As the contract says. Cancelled, the thread finishes the transaction that it has begun; one that
        it has not begun never happens."""
        rows = batch.rows
        return await self._writer.run(lambda connection: _insert(connection, rows))

    async def ping(self) -> None:
        """As the contract says: takes and gives back the lock that a write needs."""
        await self._writer.run(_try_lock)

    def abort(self) -> None:
        """As the contract says. Any thread may call it; a call that waits for a lock ends by its timeout."""
        for lane in self._lanes:
            lane.abort()

    async def migrate(self) -> None:
        """As the contract says. Cancelled, the thread finishes what it has begun."""
        await self._migrator.run(_SCHEMA.ensure)

    async def record_boot(self, boot: Boot) -> None:
        await self._writer.run(lambda connection: _upsert_boot(connection, boot))

    async def read_usage(self, query: UsageQuery) -> UsagePage:
        """As the contract says. Raises ``ValueError`` for a filter that is none of ``FILTER_COLUMNS``."""
        sql, values = page_statement(query)
        return await self._reader.run(lambda connection: read_page(connection, sql, values, query.limit))

    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        """As the contract says. Raises ``ValueError`` for a filter or a grouping that there is not."""
        sql = summary_statements(query)
        return await self._reader.run(lambda connection: read_summary(connection, sql, query.group_by))

    async def read_boots(self) -> tuple[Boot, ...]:
        return await self._reader.run(read_boots)

    async def read_runs(self) -> tuple[Run, ...]:
        return await self._reader.run(read_runs)

    async def read_repeated(self, boot_id: UUID, limit: int) -> tuple[NumberedRow, ...]:
        return await self._reader.run(lambda connection: read_repeated(connection, boot_id, limit))

    def pool(self) -> Mapping[str, int]:
        return uses(self._lanes)

    @property
    def _lanes(self) -> tuple[Lane[sqlite3.Connection], ...]:
        return self._writer, self._reader, self._migrator


# --- jobs


def _insert(connection: sqlite3.Connection, rows: tuple[UsageRecord, ...]) -> Committed:
    values = _values(rows)
    with transaction(connection):
        before = connection.total_changes
        _bind(connection, values)
        new = connection.total_changes - before
    return Committed(new, len(rows) - new)


def _values(rows: tuple[UsageRecord, ...]) -> list[tuple[Any, ...]]:
    try:
        return plain_rows(rows)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise SinkBatchRejected(type(error).__name__, "a row holds a value of the wrong type") from error


def _bind(connection: sqlite3.Connection, values: list[tuple[Any, ...]]) -> None:
    try:
        connection.executemany(_SQL["insert_row"], values)
    except (sqlite3.IntegrityError, sqlite3.DataError) as error:
        raise SinkBatchRejected(error_code(error), str(error)) from error
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError, OverflowError, UnicodeEncodeError) as error:
        raise SinkBatchRejected(type(error).__name__, "a row holds a value that cannot be bound") from error


def _try_lock(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        pass


def _upsert_boot(connection: sqlite3.Connection, boot: Boot) -> None:
    values = {
        "boot_id": str(boot.id),
        "started_at": timestamp_text(boot.started_at),
        "closed_at": timestamp_text(boot.closed_at) if boot.closed_at else None,
        "last_seq": boot.last_seq,
        "abandoned": boot.abandoned,
    }
    with transaction(connection):
        connection.execute(_SQL["record_boot"], values)
