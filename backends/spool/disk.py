"""The spool's own thread: folder, lock and file, opened when first needed and again after trouble.

Takes jobs, one at a time; gives their answers, or ``SpoolUnavailable`` with a reason. What it finds, loses
and has room for can be read from elsewhere.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection
from errno import ENOENT
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from ..errors import SpoolUnavailable
from ..record import Batch
from .folders import SpoolFolder, abandoned, claim
from .options import SpoolOptions
from .salvage import salvage
from .store import Changes, SpoolCorrupt, SpoolStore

log = logging.getLogger("backends.spool")

Answer = TypeVar("Answer")
FULL = "full"


class SpoolDisk:
    """All of one instance's files. Methods are for one thread at a time; attributes may be read by any."""

    def __init__(self, options: SpoolOptions) -> None:
        self.options = options
        self.owner = ""
        self.except_for: Collection[UUID] = ()
        self.damaged = 0
        self.set_aside: Path | None = None
        self.room_bytes = 0
        self._found: deque[int] = deque()
        self._lost: deque[int] = deque()
        self._folder: SpoolFolder | None = None
        self._store: SpoolStore | None = None
        self._is_recovered = False
        self._cursor = 0

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
            if self._store is None:
                self._open()
            answer = job()
            self._measure()
            return answer
        except (sqlite3.Error, OSError, SpoolCorrupt) as error:
            if not isinstance(error, sqlite3.OperationalError) or "IOERR" in reason(error):
                self.close()  # it is read anew, never trusted
            raise SpoolUnavailable(reason(error)) from error

    def open(self) -> None:
        """Sign the file, and take over what the dead left."""
        self._opened.sign(self.owner)
        self.adopt()

    def apply(self, changes: Changes, *, is_last: bool = False) -> None:
        """See ``SpoolStore.apply``. In a full file only room is made, unless this ``is_last``."""
        if not changes.grows or self.room_bytes > 0 or is_last:
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

    def adopt(self) -> None:
        """Move what dead siblings left into our own file: first ours, then theirs goes. May be repeated."""
        for folder in abandoned(self.options.path):
            try:
                self._take_over(folder)
            except (sqlite3.Error, OSError) as error:
                log.warning("spool_not_adopted", extra={"folder": str(folder.path), "why": reason(error)})
            finally:
                folder.release()

    def close(self) -> None:
        """Let go of file and folder. May be repeated."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._folder is not None:
            self._folder.release()
            self._folder = None

    # --- opening

    @property
    def _opened(self) -> SpoolStore:
        assert self._store is not None, "only within `attempt`"
        return self._store

    def _open(self) -> None:
        if self._folder is None:
            self._folder = claim(self.options.path)
        store = self._opened_or_mended(self._folder.database)
        try:
            self._recover(store)
        except BaseException:
            store.close()
            raise
        self._store, self._cursor = store, 0
        self._measure()

    def _recover(self, store: SpoolStore) -> None:
        """Once: what is in the file later is ours."""
        if not self._is_recovered:
            found = store.recover(self.except_for)
            self._found.append(found.rows)
            self.damaged += found.damaged
            self._is_recovered = True

    def _opened_or_mended(self, path: Path) -> SpoolStore:
        try:
            return SpoolStore(path, self.options.sync)
        except SpoolCorrupt:
            aside = _moved_aside(path)
            store = SpoolStore(path, self.options.sync)
        self.set_aside = aside
        saved = salvage(aside, store)
        log.error("spool_corrupt", extra={"set_aside": str(aside), "rows_saved": saved})
        return store

    def _take_over(self, folder: SpoolFolder) -> None:
        orphan = self._opened_or_mended(folder.database)
        rows = 0
        try:
            self.damaged += orphan.recover(self.except_for).damaged
            while some := orphan.some_rows():
                new = self._opened.take_in(some)
                self._found.append(new)
                orphan.drop(some)
                rows += new
        finally:
            orphan.close()
        folder.clear()
        if rows:
            log.info("spool_adopted", extra={"folder": str(folder.path), "rows": rows})

    def _note_lost(self, store: SpoolStore) -> None:
        self._lost.append(store.lost)
        self.damaged += store.lost
        store.lost = 0

    def _measure(self) -> None:
        assert self._folder is not None
        if not self._folder.is_there():
            raise FileNotFoundError(ENOENT, "the spool's folder is gone")
        free = shutil.disk_usage(self._opened.path.parent).free
        self.room_bytes = min(
            self.options.max_bytes - self._opened.size(), free - self.options.min_free_bytes
        )


def _moved_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _emptied(counts: deque[int]) -> int:
    total = 0
    while counts:
        total += counts.popleft()
    return total


def reason(error: BaseException) -> str:
    """A word on what went wrong, without any value."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorname", type(error).__name__)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__
