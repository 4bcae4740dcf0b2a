"""The file of one spool: rows that only this disk has, or that it has for safety, by batch.

Takes batches, journalled rows and intents; gives them back after a crash, checked. Synchronous, for one
thread at a time. Everything that changes the file is one transaction: all of it or nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from uuid import UUID
from zlib import crc32

from ..codec import from_json, to_json
from ..record import Batch, UsageRecord
from ..statements import statements

SCHEMA_VERSION = 1
ROWS_PER_BATCH = 1000
"""Rows that were journalled without a batch are given back in batches of so many."""

_SQL = statements("spool")


class SpoolCorrupt(Exception):
    """The file is no spool, or SQLite finds it damaged: it has to be set aside."""


@dataclass(slots=True)
class Changes:
    """What one transaction does, in this order."""

    intents: list[UsageRecord] = field(default_factory=list)
    rows: list[UsageRecord] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    dropped_intents: list[UUID] = field(default_factory=list)
    dropped_rows: list[UUID] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.intents, self.rows, self.batches, self.dropped_intents, self.dropped_rows))


@dataclass(frozen=True, slots=True)
class Found:
    """What was in the file when it was opened. ``damaged`` failed their checksum: they are not among
    ``rows``, and stay in a table of their own for whoever can read them."""

    rows: int
    damaged: int


class SpoolStore:
    """One open file. Raises ``sqlite3.Error`` and ``OSError``: the caller decides what they mean."""

    def __init__(self, path: Path, sync: Literal["normal", "full"]) -> None:
        self.path = path
        self.lost = 0
        self._connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(sync)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Let go of the file. May be repeated."""
        self._connection.close()

    def recover(self) -> Found:
        """After opening: every intent becomes the row of a call that a crash ended, every loose row gets a
        batch. May be repeated."""
        with self._transaction():
            damaged = self._part_with_damaged()
            self._settle_intents()
            self._gather_loose_rows()
            self._connection.execute(_SQL["drop_empty_batches"])
        (rows,) = self._connection.execute(_SQL["count"]).fetchone()
        return Found(int(rows), damaged)

    def apply(self, changes: Changes) -> None:
        """Do all of ``changes``; returning means on disk. May be repeated."""
        with self._transaction():
            execute, many = self._connection.execute, self._connection.executemany
            many(_SQL["keep_intent"], ((str(row.id), *_body(row)) for row in changes.intents))
            many(_SQL["keep_row"], ((str(row.id), None, 0, *_body(row)) for row in changes.rows))
            many(_SQL["drop_intent"], ((str(row.id),) for row in changes.rows))
            for batch in changes.batches:
                execute(_SQL["keep_batch"], (str(batch.id),))
                many(_SQL["keep_row"], _batch_rows(batch))
            many(_SQL["drop_intent"], ((str(row_id),) for row_id in changes.dropped_intents))
            many(_SQL["drop_row"], ((str(row_id),) for row_id in changes.dropped_rows))

    def next_batch(self, after: int) -> tuple[int, Batch] | None:
        """The first batch with a number above ``after`` that has rows, and its number. Rows that were whole
        when the file was opened and are not now are put apart, and counted in ``lost``."""
        while (found := self._connection.execute(_SQL["next_batch"], (after,)).fetchone()) is not None:
            after, batch_id = int(found[0]), UUID(found[1])
            rows = self._connection.execute(_SQL["rows_of_batch"], (str(batch_id),)).fetchall()
            if not all(_is_whole(body, crc) for _, body, crc in rows):
                with self._transaction():
                    self.lost += self._part_with_damaged()
            whole = tuple(_record(body, crc) for _, body, crc in rows if _is_whole(body, crc))
            if whole:
                return after, Batch(batch_id, whole)
        return None

    def size(self) -> int:
        """The bytes in use in the file."""
        page, pages, free = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        return page * (pages - free)

    # --- opening

    def _prepare(self, sync: str) -> None:
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(f"PRAGMA synchronous={sync.upper()}")
            if self._connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise SpoolCorrupt(str(self.path))
            with self._transaction():
                for name, statement in _SQL.items():
                    if name.startswith("schema_"):
                        self._connection.execute(statement)
        except sqlite3.DatabaseError as error:
            if type(error) is sqlite3.DatabaseError:  # SQLITE_CORRUPT, SQLITE_NOTADB
                raise SpoolCorrupt(str(self.path)) from error
            raise

    def _settle_intents(self) -> None:
        found = self._connection.execute(_SQL["all_intents"]).fetchall()
        intents = [_record(body, crc) for _, body, crc in found]
        ended = [replace(row, status="cancelled", end_reason="crash") for row in intents]
        keep, drop = _SQL["keep_row"], _SQL["drop_intent"]
        self._connection.executemany(keep, ((str(row.id), None, 0, *_body(row)) for row in ended))
        self._connection.executemany(drop, ((str(row.id),) for row in ended))

    def _gather_loose_rows(self) -> None:
        while loose := self._connection.execute(_SQL["loose_rows"], (ROWS_PER_BATCH,)).fetchall():
            batch = Batch.of(())
            self._connection.execute(_SQL["keep_batch"], (str(batch.id),))
            places = ((str(batch.id), place, row_id) for place, (row_id, _, _) in enumerate(loose))
            self._connection.executemany(_SQL["put_in_batch"], places)

    def _part_with_damaged(self) -> int:
        damaged = 0
        for table, drop in (("all_rows", "drop_row"), ("all_intents", "drop_intent")):
            found = self._connection.execute(_SQL[table])
            for row_id, body in [(row_id, body) for row_id, body, crc in found if not _is_whole(body, crc)]:
                self._connection.execute(_SQL["keep_damaged"], (row_id, body))
                self._connection.execute(_SQL[drop], (row_id,))
                damaged += 1
        return damaged

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.rollback()
            raise


def _record(body: bytes, crc: int) -> UsageRecord:
    if crc32(body) != crc:
        raise SpoolCorrupt("checksum")
    return from_json(json.loads(body))


def _is_whole(body: bytes, crc: int) -> bool:
    try:
        _record(body, crc)
    except (SpoolCorrupt, ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        return False
    return True


def _body(row: UsageRecord) -> tuple[bytes, int]:
    body = json.dumps(to_json(row), separators=(",", ":")).encode()
    return body, crc32(body)


def _batch_rows(batch: Batch) -> Iterator[tuple[str, str, int, bytes, int]]:
    for place, row in enumerate(batch.rows):
        yield str(row.id), str(batch.id), place, *_body(row)
