"""The file of one spool: rows that only this disk has, or that it has for safety, by batch.

Takes batches, journalled rows and intents; gives them back after a crash, checked. Synchronous, for one
thread at a time. Everything that changes the file is one transaction: all of it or nothing.
"""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID
from zlib import crc32

from msgspec import structs, to_builtins

from ..codec import from_json, json_bytes
from ..record import Batch, UsageRecord
from ..statements import as_text, statements
from .changes import Changes

ROWS_PER_BATCH = 1000
"""Rows that were journalled without a batch are given back in batches of so many."""
LOCK_S = 1.0
"""How long somebody else may hold the file's lock, who has no business there."""
WORTH_SHRINKING = 4096
"""Free pages, in a file that is otherwise empty, that are given back to the disk."""

_SQL = statements("spool")


class SpoolCorrupt(Exception):
    """The file is no spool, or SQLite finds it damaged: it has to be set aside."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A row as it is in the file. ``batch_id`` is None for one that is journalled only."""

    row_id: str
    batch_id: str | None
    place: int
    body: bytes
    crc: int

    @property
    def is_whole(self) -> bool:
        """Whether the body is what was written."""
        return crc32(self.body) == self.crc


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
        self.folder = path.parent
        self.lost = 0
        self._connection = sqlite3.connect(
            path, timeout=LOCK_S, isolation_level=None, check_same_thread=False
        )
        self._connection.text_factory = as_text
        # Let go of the file, also when a loop ended without a stop and nobody is left to say so. Repeatable.
        self.close = weakref.finalize(self, self._connection.close)
        try:
            self._prepare(sync)
        except BaseException:
            self.close()
            raise

    def recover(self, except_for: Collection[UUID] = ()) -> Found:
        """After opening: every intent becomes the row of a call that a crash ended, every loose row gets a
        batch, and the rows ``except_for`` go, for they are safe elsewhere. May be repeated."""
        with self._transaction():
            self._drop(except_for)
            damaged = self._part_with_damaged()
            self._connection.execute(_SQL["loosen_rows"])
            self._settle_intents()
            self._gather_loose_rows()
            self._connection.execute(_SQL["drop_empty_batches"])
        (rows,) = self._connection.execute(_SQL["count"]).fetchone()
        return Found(int(rows), damaged)

    def apply(self, changes: Changes) -> None:
        """Do all of ``changes``; returning means on disk. May be repeated."""
        with self._transaction():
            self._many("keep_intent", _stored(changes.intents))
            self._keep_rows(None, changes.rows)
            for batch in (*changes.batches, *changes.numbered):
                self._connection.execute(_SQL["keep_batch"], (str(batch.id),))
                self._keep_rows(str(batch.id), batch.rows)
            self._many("drop_intent", _keys(changes.dropped_intents))
            self._drop(changes.dropped_rows)
        if changes.dropped_rows:
            self._shrink()

    def take_in(self, rows: Iterable[Stored]) -> int:
        """Rows of another file, as they were there; how many of them are new here. Damaged ones are put
        apart, as ``recover`` does. May be repeated."""
        with self._transaction():
            return sum(self._take_in(row) for row in rows)

    def take_in_damaged(self, other: SpoolStore) -> None:
        """What ``other`` put apart, for whoever can read it."""
        with self._transaction():
            for values in other._connection.execute(_SQL["all_damaged"]).fetchall():
                self._connection.execute(_SQL["keep_damaged"], values)

    def take_in_intents(self, rows: Iterable[Stored]) -> None:
        """Intents of another file. May be repeated."""
        with self._transaction():
            whole = ((row.row_id, row.body, row.crc) for row in rows if row.is_whole)
            self._connection.executemany(_SQL["keep_intent"], whole)

    def owner(self) -> str | None:
        """Who signed last."""
        found = self._connection.execute(_SQL["owner"]).fetchone()
        return found[0] if found else None

    def checkpoint(self) -> None:
        """All of it is in the file itself, and survives a power cut, whatever ``sync``."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def sign(self, owner: str) -> None:
        """Write down who works with this file; also a proof that it can be written."""
        self._connection.execute(_SQL["sign"], (owner,))

    def next_batch(self, after: int, except_for: Collection[UUID] = ()) -> tuple[int, Batch] | None:
        """The first batch with a number above ``after`` that has rows other than ``except_for``, and its
        number. Rows that are damaged by now are put apart, and counted in ``lost``."""
        while (found := self._connection.execute(_SQL["next_batch"], (after,)).fetchone()) is not None:
            after, batch_id = found
            rows = tuple(row for row in self._rows_of(batch_id) if row.id not in except_for)
            if rows:
                return after, Batch(_batch_id(batch_id), rows)
            self._connection.execute(_SQL["drop_empty_batch"], (batch_id,))
        return None

    def some_rows(self) -> list[Stored]:
        """Rows as they are stored, not more than ``ROWS_PER_BATCH``; [] once none is left."""
        return [Stored(*values) for values in self._connection.execute(_SQL["some_rows"], (ROWS_PER_BATCH,))]

    def drop(self, rows: Iterable[Stored]) -> None:
        """These rows are in another file."""
        with self._transaction():
            self._connection.executemany(_SQL["drop_row"], ((row.row_id,) for row in rows))

    def size(self) -> int:
        """The bytes in use in the file."""
        page, pages, free = map(self._pragma, ("page_size", "page_count", "freelist_count"))
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
            if is_corrupt(error):
                raise SpoolCorrupt(str(self.path)) from error
            raise

    def _settle_intents(self) -> None:
        found = self._connection.execute(_SQL["all_intents"]).fetchall()
        intents = [row for _, body, crc in found if (row := _read(body, crc)) is not None]
        ended = [structs.replace(row, status="cancelled", end_reason="crash") for row in intents]
        kept = _stored(ended)  # as a new row: one that is there says more than its intent
        self._many("keep_new_row", [(row_id, None, 0, body, crc) for row_id, body, crc in kept])
        self._many("drop_intent", [(row_id,) for row_id, _, _ in kept])

    def _gather_loose_rows(self) -> None:
        while loose := self._connection.execute(_SQL["loose_rows"], (ROWS_PER_BATCH,)).fetchall():
            batch = Batch.of(())
            self._connection.execute(_SQL["keep_batch"], (str(batch.id),))
            places = ((str(batch.id), place, row_id) for place, (row_id,) in enumerate(loose))
            self._connection.executemany(_SQL["put_in_batch"], places)

    # --- what is damaged

    def _part_with_damaged(self) -> int:
        damaged = 0
        for table, drop in (("all_rows", "drop_row"), ("all_intents", "drop_intent")):
            found = self._connection.execute(_SQL[table])
            for row_id, body in [(row_id, body) for row_id, body, crc in found if crc32(body) != crc]:
                self._part_with(row_id, body, drop)
                damaged += 1
        return damaged

    def _part_with(self, row_id: str, body: bytes, drop: str) -> None:
        self._connection.execute(_SQL["keep_damaged"], (row_id, body))
        self._connection.execute(_SQL[drop], (row_id,))

    def _rows_of(self, batch_id: str) -> Iterator[UsageRecord]:
        for row_id, body, crc in self._connection.execute(_SQL["rows_of_batch"], (batch_id,)).fetchall():
            row = _read(body, crc)
            if row is not None and str(row.id) == row_id:
                yield row
                continue
            with self._transaction():
                self._part_with(row_id, body, "drop_row")
            self.lost += 1

    def _take_in(self, row: Stored) -> int:
        if not row.is_whole:
            self._connection.execute(_SQL["keep_damaged"], (row.row_id, row.body))
            return 0
        if row.batch_id is not None:
            self._connection.execute(_SQL["keep_batch"], (row.batch_id,))
        values = (row.row_id, row.batch_id, row.place, row.body, row.crc)
        return self._connection.execute(_SQL["keep_new_row"], values).rowcount

    # --- the file

    def _keep_rows(self, batch_id: str | None, rows: Sequence[UsageRecord]) -> None:
        kept = _stored(rows)
        values = ((row_id, batch_id, place, body, crc) for place, (row_id, body, crc) in enumerate(kept))
        self._many("keep_row", list(values))
        self._many("drop_intent", [(row_id,) for row_id, _, _ in kept])

    def _drop(self, rows: Collection[UUID]) -> None:
        keys = _keys(rows)
        self._many("drop_row", keys)
        self._many("drop_intent", keys)  # of a row that could not be journalled

    def _many(self, statement: str, values: Collection[Sequence[Any]]) -> None:
        if values:
            self._connection.executemany(_SQL[statement], values)

    def _shrink(self) -> None:
        """An outage is over: give its room back to the disk."""
        free = self._pragma("freelist_count")
        if free > WORTH_SHRINKING and free > 0.95 * self._pragma("page_count"):
            self._connection.execute("VACUUM")

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

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


def is_corrupt(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is bad (SQLITE_CORRUPT, SQLITE_NOTADB), not what was asked of it."""
    return type(error) is sqlite3.DatabaseError


def reason(error: BaseException) -> str:
    """A word on what went wrong, without any value."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorname", type(error).__name__)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__


def _batch_id(text: str) -> UUID:
    """What was damaged was never sent under the id that it has now."""
    try:
        return UUID(text)
    except ValueError:
        return Batch.of(()).id


def _read(body: bytes, crc: int) -> UsageRecord | None:
    """The row, or None if it is not what was written, or was written by a program that knew other columns."""
    if crc32(body) != crc:
        return None
    try:
        return from_json(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        return None


def _stored(rows: Sequence[UsageRecord]) -> list[tuple[str, bytes, int]]:
    """Of each row its id, its body and the checksum of that."""
    bodies = [json_bytes(row) for row in rows]
    return list(zip(to_builtins([row.id for row in rows]), bodies, map(crc32, bodies), strict=True))


def _keys(row_ids: Collection[UUID]) -> list[tuple[str]]:
    return [(text,) for text in to_builtins(list(row_ids))]
