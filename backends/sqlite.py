"""The embedded default: usage rows in one SQLite file, beside the gateway, without a server.

Takes batches, each one transaction; gives ``Committed`` once it is on the disk. The file is opened, and its
schema made or checked, by the first call that needs it, so a file that is gone or locked delays no start.
``synchronous=FULL``: a returned ``write`` survives kill -9 and a power cut alike. NORMAL would survive only
the former, and saves some tenths of a millisecond per batch on a disk that does not lie about its flushes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import UUID

from pydantic import Field, field_validator

from .codec import plain_values, timestamp_text
from .errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable
from .lane import DatabaseFile, Lane
from .numbers import NumberedRow, Run
from .record import COLUMNS, Batch, Boot, UsageRecord
from .sink import Capabilities, Committed, SinkOptions
from .sqlite_audit import read_boots, read_repeated, read_runs
from .sqlite_reads import page_statement, read_page, read_summary, summary_statements
from .statements import statements
from .usage_query import SummaryQuery, SummaryRow, UsagePage, UsageQuery

SCHEMA_VERSION = 1
_LOCK_POLL_S = 0.01
_SQL = statements("sqlite")


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
        connect = partial(_connect, self._file.path, self._patience_s, migrates)
        return Lane(name, self._file, connect, _translated, patience_s=self._patience_s)

    @classmethod
    @asynccontextmanager
    async def open(cls, options: SqliteOptions) -> AsyncIterator[Self]:
        sink = cls(options)
        try:
            yield sink
        finally:
            await asyncio.gather(*(lane.close() for lane in sink._lanes))

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
        await self._migrator.run(_ensure_schema)

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

    @property
    def _lanes(self) -> tuple[Lane[sqlite3.Connection], ...]:
        return self._writer, self._reader, self._migrator


# --- connecting


def _connect(path: str, busy_timeout_s: float, migrates: bool) -> sqlite3.Connection:
    if not migrates and not os.path.exists(path):  # connecting would make it
        raise _schema_missing(f"there is no file {path}")
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        _use_wal(connection, time.monotonic() + busy_timeout_s)
        connection.execute("PRAGMA synchronous=FULL")
        _ensure_schema(connection) if migrates else _need_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Several processes that switch a new file at once are told BUSY without any wait: so wait here."""
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_LOCK_POLL_S)
    if mode != "wal":
        raise SinkFatal("no_wal", "this file system has no shared memory; put the path on a local disk")


def _ensure_schema(connection: sqlite3.Connection) -> None:
    if _schema_version(connection) < SCHEMA_VERSION:
        with _transaction(connection):
            if _schema_version(connection) < SCHEMA_VERSION:  # no other process was faster
                _create_schema(connection)
    _check_columns(connection)


def _need_schema(connection: sqlite3.Connection) -> None:
    if (version := _schema_version(connection)) < SCHEMA_VERSION:
        raise _schema_missing(f"the file has {f'schema {version}' if version else 'no schema'} of ours")
    _check_columns(connection)


def _schema_missing(found: str) -> SinkFatal:
    return SinkFatal("schema_missing", f"{found}; run: tallygate migrate")


def _schema_version(connection: sqlite3.Connection) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise SinkFatal("schema_newer", f"the file has schema {version}, this program knows {SCHEMA_VERSION}")
    return version


def _create_schema(connection: sqlite3.Connection) -> None:
    for name, statement in _SQL.items():
        if name.startswith("schema_"):
            connection.execute(statement)
    _check_columns(connection)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _check_columns(connection: sqlite3.Connection) -> None:
    found = {row[1] for row in connection.execute("PRAGMA table_info(usage_logs)")}
    if strange := found.symmetric_difference(COLUMNS):
        names = ", ".join(sorted(strange))
        raise SinkFatal("schema_differs", f"usage_logs has other columns than this program's ({names})")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """The write lock, and everything or nothing. A commit that fails may have happened all the same."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):
            connection.rollback()
        raise
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise SinkRetryable(_code(error), str(error), ambiguous=True) from error


# --- jobs


def _insert(connection: sqlite3.Connection, rows: tuple[UsageRecord, ...]) -> Committed:
    values = _values(rows)
    with _transaction(connection):
        before = connection.total_changes
        _bind(connection, values)
        new = connection.total_changes - before
    return Committed(new, len(rows) - new)


def _values(rows: tuple[UsageRecord, ...]) -> list[tuple[Any, ...]]:
    try:
        return [plain_values(row) for row in rows]
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise SinkBatchRejected(type(error).__name__, "a row holds a value of the wrong type") from error


def _bind(connection: sqlite3.Connection, values: list[tuple[Any, ...]]) -> None:
    try:
        connection.executemany(_SQL["insert_row"], values)
    except (sqlite3.IntegrityError, sqlite3.DataError) as error:
        raise SinkBatchRejected(_code(error), str(error)) from error
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError, OverflowError, UnicodeEncodeError) as error:
        raise SinkBatchRejected(type(error).__name__, "a row holds a value that cannot be bound") from error


def _try_lock(connection: sqlite3.Connection) -> None:
    with _transaction(connection):
        pass


def _upsert_boot(connection: sqlite3.Connection, boot: Boot) -> None:
    values = {
        "boot_id": str(boot.id),
        "started_at": timestamp_text(boot.started_at),
        "closed_at": timestamp_text(boot.closed_at) if boot.closed_at else None,
        "last_seq": boot.last_seq,
        "abandoned": boot.abandoned,
    }
    with _transaction(connection):
        connection.execute(_SQL["record_boot"], values)


# --- errors

_FATAL = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
"""A missing table or column, or no database at all: trying again mends nothing."""

_NOT_STORED = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_SCHEMA,
}
"""Before the commit these say that nothing was stored; ``_transaction`` speaks for the commit itself."""


@contextmanager
def _translated() -> Iterator[None]:
    """What the driver or the operating system raises, as one of the contract's errors."""
    try:
        yield
    except sqlite3.Error as error:
        raise _sink_error(error) from error
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "OSError")
        raise SinkRetryable(code, error.strerror or "", ambiguous=False) from error
    except MemoryError as error:  # the driver's word for SQLITE_NOMEM
        raise SinkRetryable("SQLITE_NOMEM", "out of memory", ambiguous=True) from error


def _sink_error(error: sqlite3.Error) -> SinkError:
    primary = _primary_code(error)
    if primary in _FATAL:
        return SinkFatal(_code(error), str(error))
    return SinkRetryable(_code(error), str(error), ambiguous=primary not in _NOT_STORED)


def _primary_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _code(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
