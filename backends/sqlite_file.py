"""What every database in one SQLite file needs: the journal, a transaction, the driver's errors in our words.

For the sink's rows and for the store; runs on the thread of a ``Lane``.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .errors import SinkError, SinkFatal, SinkRetryable

_LOCK_POLL_S = 0.01


@dataclass(frozen=True)
class Schema:
    """``version`` is kept in the file. The statements are those whose names begin with ``schema_``; tables
    that are there are left alone by them. ``tables`` has the columns of each table that is checked."""

    version: int
    statements: Mapping[str, str]
    tables: Mapping[str, Collection[str]]

    def ensure(self, connection: sqlite3.Connection) -> None:
        """Make the schema where there is none. Raises ``SinkFatal`` for a file of a newer program, or with
        other columns."""
        if self._version(connection) < self.version:
            with transaction(connection):
                if self._version(connection) < self.version:  # no other process was faster
                    self._create(connection)
        self._check(connection)

    def need(self, connection: sqlite3.Connection) -> None:
        """Make nothing: raises ``SinkFatal`` also where there is no schema."""
        if (version := self._version(connection)) < self.version:
            raise _schema_missing(f"the file has {f'schema {version}' if version else 'no schema'} of ours")
        self._check(connection)

    def _version(self, connection: sqlite3.Connection) -> int:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > self.version:
            raise SinkFatal(
                "schema_newer", f"the file has schema {version}, this program knows {self.version}"
            )
        return version

    def _create(self, connection: sqlite3.Connection) -> None:
        for name, statement in self.statements.items():
            if name.startswith("schema_"):
                connection.execute(statement)
        self._check(connection)
        connection.execute(f"PRAGMA user_version={self.version}")

    def _check(self, connection: sqlite3.Connection) -> None:
        for table, columns in self.tables.items():
            found = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            if not found:
                raise SinkFatal("schema_differs", f"there is no {table}; is the file another program's?")
            if strange := found.symmetric_difference(columns):
                names = ", ".join(sorted(strange))
                raise SinkFatal("schema_differs", f"{table} has other columns than this program's ({names})")


def connect(path: str, schema: Schema, *, busy_timeout_s: float, migrates: bool) -> sqlite3.Connection:
    """The file, with a write-ahead log and every commit on the disk, its schema made or at least checked."""
    if not migrates and not os.path.exists(path):  # connecting would make it
        raise _schema_missing(f"there is no file {path}")
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
    try:
        _use_wal(connection, time.monotonic() + busy_timeout_s)
        connection.execute("PRAGMA synchronous=FULL")
        schema.ensure(connection) if migrates else schema.need(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _schema_missing(found: str) -> SinkFatal:
    return SinkFatal("schema_missing", f"{found}; run: tallygate migrate")


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


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
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
        raise SinkRetryable(error_code(error), str(error), ambiguous=True) from error


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
"""Before the commit these say that nothing was stored; ``transaction`` speaks for the commit itself."""


@contextmanager
def translated() -> Iterator[None]:
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
        return SinkFatal(error_code(error), str(error))
    return SinkRetryable(error_code(error), str(error), ambiguous=primary not in _NOT_STORED)


def _primary_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def error_code(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
