"""The spool's own thread: folder, lock and file, opened when first needed and again after trouble.

Takes jobs, one at a time; gives their answers, or ``SpoolUnavailable`` with a reason. What it finds, loses
and has room for can be read from elsewhere.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Generator
from errno import ENOENT
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from ..errors import SpoolUnavailable
from ..record import MAX_ROW_BYTES, Batch
from .changes import Changes
from .folders import SpoolFolder, claim
from .mending import open_or_mend
from .options import SpoolOptions
from .orphans import adopt
from .store import SpoolCorrupt, SpoolStore, reason

log = logging.getLogger("backends.spool")

Answer = TypeVar("Answer")
FULL = "full"
NEARLY_EMPTY = 0.9
"""A file that has so much of its room left, every row since taken for one of the largest size, is not
measured after each job: that takes as long as some rows. The disk's room is, for others use it too."""


class SpoolDisk:
    """All of one instance's files. Methods are for one thread at a time; attributes may be read by any."""

    def __init__(self, options: SpoolOptions) -> None:
        self.options = options
        self.owner = ""
        self.except_for: Collection[UUID] = ()
        self.damaged = 0
        self.set_aside: Path | None = None
        self.room_bytes = 0
        self._room_in_file = 0
        self._found: deque[int] = deque()
        self._lost: deque[int] = deque()
        self._folder: SpoolFolder | None = None
        self._store: SpoolStore | None = None
        self._cursor = 0
        self._adopting: Generator[int, None, None] | None = None

    def take_found(self) -> int:
        """How many rows of earlier runs came into the file since this was last asked."""
        return _emptied(self._found)

    def take_lost(self) -> int:
        """How many rows turned out to be unreadable since this was last asked, after they were counted."""
        return _emptied(self._lost)

    # --- jobs

    def attempt(self, job: Callable[[], Answer]) -> Answer:
        """Do ``job`` with the file open. Raises ``SpoolUnavailable``."""
        try:
            if self._folder is not None and not self._folder.is_there():
                self.close()  # somebody took it away: what we write into it is nowhere
            if self._store is None:
                self._open()
            answer = job()
        except (sqlite3.Error, OSError, SpoolCorrupt) as error:
            is_plain = isinstance(error, sqlite3.OperationalError) and "IOERR" not in reason(error)
            if not is_plain:
                self._let_go()  # it is read anew, never trusted
            raise SpoolUnavailable(reason(error)) from error
        self._measure_what_is_there()
        return answer

    def sign(self) -> None:
        """Write down whose file it is; a proof that it can be written."""
        self._opened.sign(self.owner)

    def apply(self, changes: Changes, *, is_last: bool = False) -> None:
        """See ``SpoolStore.apply``. In a full file only room is made, unless this ``is_last``."""
        if not changes.grows or self.room_bytes > 0 or is_last:
            self._room_in_file -= changes.rows_written * MAX_ROW_BYTES
            return self._opened.apply(changes)
        self._opened.apply(changes.only_drops())
        self._measure()
        raise SpoolUnavailable(FULL)

    def next_batch(self, except_for: Collection[UUID]) -> Batch | None:
        """The next batch, round and round, without the rows ``except_for``; None when there is none."""
        store = self._opened
        found = store.next_batch(self._cursor, except_for) or store.next_batch(0, except_for)
        self._note_lost(store)
        if found is None:
            return None
        self._cursor, batch = found
        return batch

    def first_batch(self, except_for: Collection[UUID]) -> Batch | None:
        """The oldest batch."""
        found = self._opened.next_batch(0, except_for)
        self._note_lost(self._opened)
        return found[1] if found else None

    def adopt(self) -> bool:
        """Move some of what dead siblings left into our own file: first ours, then theirs goes. Whether that
        was all; to be repeated until it is, with other jobs between."""
        self._room_in_file = 0
        if self._adopting is None:
            self._adopting = adopt(self.options, self.except_for, lambda: self._safe, self._found.append)
        for damaged in self._adopting:
            self.damaged += damaged
            return False
        self._adopting = None
        return True

    def close(self) -> None:
        """Let go of file and folder. May be repeated."""
        self._let_go()
        if self._adopting is not None:
            self._adopting.close()
            self._adopting = None
        if self._folder is not None:
            self._folder.release()
            self._folder = None

    # --- opening

    @property
    def _opened(self) -> SpoolStore:
        assert self._store is not None, "only within `attempt`"
        return self._store

    @property
    def _safe(self) -> SpoolStore:
        """Our file, into which others' rows may go: it is still where we made it."""
        if self._folder is None or not self._folder.is_there():
            raise FileNotFoundError(ENOENT, "the spool's folder is gone")
        return self._opened

    def _open(self) -> None:
        if self._folder is None:
            self._folder = claim(self.options.path)
        store = self._opened_or_mended(self._folder.database)
        try:
            self._recover(store)
        except BaseException:
            store.close()
            raise
        self._store, self._cursor, self._room_in_file = store, 0, 0
        self._measure()

    def _recover(self, store: SpoolStore) -> None:
        """Once: what is in a file that we have signed is ours, and known."""
        if store.owner() == self.owner:
            return
        found = store.recover(self.except_for)
        store.sign(self.owner)
        self._found.append(found.rows)
        self.damaged += found.damaged

    def _opened_or_mended(self, path: Path) -> SpoolStore:
        store, aside = open_or_mend(path, self.options.sync)
        self.set_aside = aside or self.set_aside
        return store

    def _note_lost(self, store: SpoolStore) -> None:
        self._lost.append(store.lost)
        self.damaged += store.lost
        store.lost = 0

    def _measure(self) -> None:
        if self._room_in_file < NEARLY_EMPTY * self.options.max_bytes:
            self._room_in_file = self.options.max_bytes - self._opened.size()
        free = shutil.disk_usage(self._opened.folder).free
        self.room_bytes = min(self._room_in_file, free - self.options.min_free_bytes)

    def _measure_what_is_there(self) -> None:
        """After a job, whose answer stands."""
        try:
            self._measure()
        except (sqlite3.Error, OSError):
            self._let_go()

    def _let_go(self) -> None:
        """Of the file; the folder stays ours, or others would take our running calls for dead ones."""
        if self._store is not None:
            self._store.close()
            self._store = None


def _emptied(counts: deque[int]) -> int:
    total = 0
    while counts:
        total += counts.popleft()
    return total
