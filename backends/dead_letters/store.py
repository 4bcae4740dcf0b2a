"""One open file of dead letters. Synchronous; for one thread at a time.

Beside its owner, others may read it and set marks. Everything that changes it is one transaction, on disk
when it returns. Raises ``DeadLettersUnavailable``, and ``LettersCorrupt`` for a file that is none.
"""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID
from zlib import crc32

from ..codec import from_json, timestamp_text, to_json
from ..errors import DeadLettersUnavailable
from ..record import Boot, UsageRecord
from ..statements import as_text, statements
from .letter import DeadLetter, KeptLetter, LettersCorrupt, LettersFull

BUSY_S = 1.0
"""How long the one who marks and the owner wait for each other; each holds the file for milliseconds."""
PAGE_ROWS = 500

_SQL = statements("letters")


class LetterStore:
    """The file at ``path``, made if there is none; with ``may_change`` false it is only read."""

    def __init__(self, path: Path, *, may_change: bool = True, patience_s: float = BUSY_S) -> None:
        self.path = path
        with self._told():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={'rwc' if may_change else 'ro'}",
                uri=True,
                timeout=patience_s,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.text_factory = as_text
        self.close = weakref.finalize(self, self._connection.close)
        try:
            self._prepare(may_change)
        except BaseException:
            self.close()
            raise

    def owner(self) -> UUID | None:
        """Who signed last."""
        with self._told():
            found = self._connection.execute(_SQL["owner"]).fetchone()
        return _uuid(found[0]) if found else None

    def sign(self, owner: UUID) -> None:
        """Write down whose file it is now: an audit tells running boots from dead ones by it."""
        with self._transaction():
            self._many("sign", [(str(owner),)])

    # --- letters

    def row_ids(self) -> set[UUID]:
        """The rows that have a letter."""
        with self._told():
            ids = [row_id for (row_id,) in self._connection.execute(_SQL["row_ids"])]
        return {row_id for text in ids if (row_id := _uuid(text)) is not None}

    def row_ids_with(self, code: str) -> set[UUID]:
        """Those that were refused with ``code``."""
        with self._told():
            ids = [row_id for (row_id,) in self._connection.execute(_SQL["ids_with_code"], (code,))]
        return {row_id for text in ids if (row_id := _uuid(text)) is not None}

    def letters(self) -> Iterator[KeptLetter]:
        """Every letter, the oldest first; those that come or go meanwhile may be among them."""
        number = 0
        while True:
            with self._told():
                page = self._connection.execute(_SQL["letters_after"], (number, PAGE_ROWS)).fetchall()
            if not page:
                return
            number = page[-1][0]
            yield from (_kept(values) for _, *values in page if _uuid(values[0]) is not None)

    def add(self, letters: Sequence[DeadLetter], max_bytes: int) -> None:
        """Keep ``letters``, all or none, unless the file would then have more than ``max_bytes`` in use."""
        with self._transaction():
            self._many("add_letter", map(_values, letters))
            self._many("drop_mark", ((str(letter.row.id),) for letter in letters))
            self._heed(max_bytes)

    def remove(self, rows: Collection[UUID]) -> None:
        """Drop the letters of ``rows``, and their marks."""
        ids = [(str(row_id),) for row_id in rows]
        with self._transaction():
            self._many("drop_letter", ids)
            self._many("drop_mark", ids)

    # --- marks

    def mark(self, rows: Collection[UUID]) -> None:
        """Mark those of ``rows`` that have a letter, some at a time: the owner waits for us meanwhile."""
        ids = [(str(row_id),) for row_id in rows]
        for start in range(0, len(ids), PAGE_ROWS):
            with self._transaction():
                self._many("mark", ids[start : start + PAGE_ROWS])

    def marked(self, most: int) -> tuple[UsageRecord, ...]:
        """The rows of the marks that are oldest; none only if nothing is marked. A letter that cannot be read
        loses its mark."""
        while found := self._marked(most):
            rows = {row_id: _row(body, crc) for row_id, body, crc in found}
            if damaged := [row_id for row_id, row in rows.items() if row is None]:
                with self._transaction():
                    self._many("drop_mark", ((row_id,) for row_id in damaged))
            if whole := tuple(row for row in rows.values() if row is not None):
                return whole
        return ()

    def _marked(self, most: int) -> list[Any]:
        with self._told():
            return self._connection.execute(_SQL["marked"], (most,)).fetchall()

    # --- boots

    def keep_boot(self, boot: Boot) -> None:
        """Keep ``boot``, in place of what was kept of it before."""
        with self._transaction():
            self._many("keep_boot", [_boot_values(boot)])

    def boots(self) -> list[Boot]:
        """Every boot that is kept."""
        with self._told():
            return [_boot(*values) for values in self._connection.execute(_SQL["boots"])]

    def drop_boot(self, boot_id: UUID) -> None:
        """Drop it."""
        with self._transaction():
            self._many("drop_boot", [(str(boot_id),)])

    # --- taking over

    def take_from(self, other: LetterStore, most: int, max_bytes: int) -> tuple[int, set[UUID]]:
        """Move up to ``most`` letters, with their marks, and all boots from ``other``, whose owner is dead;
        how many that were, and the rows that had no letter here.

        First they are here, then they go there: whatever ends us between finds them at the next try. The
        other file is locked all along, so that no mark is set there that would be lost.
        """
        with other._transaction():
            found = other._connection.execute(_SQL["oldest_letters"], (most,)).fetchall()
            boots = other._connection.execute(_SQL["boots"]).fetchall()
            with self._transaction():
                new = {
                    row_id for each in found if self._take(each) and (row_id := _uuid(each[0])) is not None
                }
                self._many("mark", ((each[0],) for each in found if each[-1]))
                self._many("keep_boot", boots)
                self._heed(max_bytes)
            other._many("drop_letter", ((each[0],) for each in found))
            other._many("drop_mark", ((each[0],) for each in found))
            other._many("drop_boot", ((each[0],) for each in boots))
        return len(found), new

    def _take(self, values: Sequence[Any]) -> bool:
        return self._connection.execute(_SQL["take_letter"], values[:-1]).rowcount > 0

    # --- the file

    def _prepare(self, may_change: bool) -> None:
        with self._told():
            if may_change:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=FULL")
            has_tables = bool(self._connection.execute(_SQL["has_tables"]).fetchone()[0])
        if not has_tables:
            self._make_tables() if may_change else self._stand_in()

    def _make_tables(self) -> None:
        with self._transaction():
            for name in _SQL:
                if name.startswith("schema_"):
                    self._connection.execute(_SQL[name])

    def _stand_in(self) -> None:
        """Its owner has only just made the file: it reads as one without letters."""
        self._connection.close()
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self.close = weakref.finalize(self, self._connection.close)
        self._make_tables()

    def check(self) -> None:
        """Raises ``LettersCorrupt`` if SQLite finds the file damaged."""
        with self._told():
            if self._connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise LettersCorrupt(str(self.path))

    def _heed(self, max_bytes: int) -> None:
        page, pages, free = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        if page * (pages - free) > max_bytes:
            raise LettersFull(f"{self.path} would grow over dead_letters.max_bytes")

    def _many(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(_SQL[statement], values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._connection.rollback()
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.Error as error:
            kind = LettersCorrupt if type(error) is sqlite3.DatabaseError else DeadLettersUnavailable
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            raise kind(f"{self.path}: {name}") from error


def _uuid(text: str) -> UUID | None:
    """None for an id that was damaged; its letter stays where it is."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _values(letter: DeadLetter) -> tuple[Any, ...]:
    row, body = letter.row, json.dumps(to_json(letter.row), separators=(",", ":"), default=repr).encode()
    told = (_clean(letter.sink), _clean(letter.code), _clean(letter.message), letter.attempts)
    at = timestamp_text(datetime.now(UTC))
    return str(row.id), str(row.boot_id) if row.boot_id else None, row.seq, *told, at, body, crc32(body)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _kept(values: Sequence[Any]) -> KeptLetter:
    row_id, boot_id, seq, sink, code, message, attempts, at, body, crc, is_marked = values
    return KeptLetter(
        row_id=UUID(row_id),
        boot_id=UUID(boot_id) if boot_id else None,
        seq=seq,
        sink=sink,
        code=code,
        message=message,
        attempts=attempts,
        at=datetime.fromisoformat(at),
        is_marked=bool(is_marked),
        row=_row(body, crc),
    )


def _row(body: bytes, crc: int) -> UsageRecord | None:
    """The row, or None if it is not what was written, or was written by a program that knew other columns."""
    if crc32(body) != crc:
        return None
    try:
        return from_json(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        return None


def _boot_values(boot: Boot) -> tuple[Any, ...]:
    closed_at = timestamp_text(boot.closed_at) if boot.closed_at else None
    return str(boot.id), timestamp_text(boot.started_at), closed_at, boot.last_seq, boot.abandoned


def _boot(boot_id: str, started_at: str, closed_at: str | None, last_seq: int | None, abandoned: str) -> Boot:
    return Boot(
        id=UUID(boot_id),
        started_at=datetime.fromisoformat(started_at),
        closed_at=datetime.fromisoformat(closed_at) if closed_at else None,
        last_seq=last_seq,
        abandoned=abandoned,
    )
