"""The dead letters of one instance: its file, under its lock, and those of the dead beside it.

Trouble with the disk never ends anything: it is a row that stays with the core, a reason to show, and a file
that is opened anew at the next try.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from ..errors import DeadLettersUnavailable
from ..record import Batch, Boot, UsageRecord
from ..spool.folders import SpoolFolder, abandoned, claim
from .letter import DeadLetter, LettersCorrupt, LettersFull

if TYPE_CHECKING:
    from .store import LetterStore

log = logging.getLogger("backends.dead_letters")

DEFAULT_MAX_BYTES = 256 * 1024 * 1024
FILE_NAME = "letters.db"
REPLAY_ROWS = 500
ADOPTED_AT_ONCE = 500
ADOPTED_AT_MOST = 2000
"""Of one file at one look: the event loop stands still meanwhile. The rest comes at the next."""
PATIENCE_S = 0.05
"""Likewise, for somebody else's transaction."""
Answer = TypeVar("Answer")


class DeadLetterFile:
    """``<root>/instance-N/letters.db``, with at most ``max_bytes`` in use. See ``DeadLetters``."""

    def __init__(self, root: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.root = root
        self.trouble: str | None = None
        self._max_bytes = max_bytes
        self._folder: SpoolFolder | None = None
        self._store: LetterStore | None = None
        self._is_read = False
        self._owner: UUID | None = None
        self._found: set[UUID] = set()
        self._removed: set[UUID] = set()

    def open(self, owner: UUID | None = None) -> frozenset[UUID]:
        """See ``DeadLetters.open``."""
        self._owner = owner
        return self.adopt()

    def adopt(self) -> frozenset[UUID]:
        """See ``DeadLetters.adopt``."""
        self._try(self._adopt, None)
        return self.take_found()

    def take_found(self) -> frozenset[UUID]:
        """See ``DeadLetters.take_found``."""
        found, self._found = frozenset(self._found), set()
        return found

    def close(self) -> None:
        """Let go of the file and of its folder. May be repeated; the file is opened again if it has to be."""
        self._close_store()
        if self._folder is not None:
            self._folder.release()
            self._folder = None

    # --- letters

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """See ``DeadLetters.add``. Blocks for one commit; letters are rare."""
        self._use(lambda store: store.add(letters, self._max_bytes))
        self._found.difference_update(letter.row.id for letter in letters)

    def marked(self) -> Batch | None:
        """See ``DeadLetters.marked``."""
        self._remove()
        most = REPLAY_ROWS + len(self._removed)
        rows: tuple[UsageRecord, ...] = self._try(lambda store: store.marked(most), ())
        left = tuple(row for row in rows if row.id not in self._removed)[:REPLAY_ROWS]
        return Batch.of(left) if left else None

    def remove(self, rows: Iterable[UUID]) -> None:
        """See ``DeadLetters.remove``."""
        self._removed.update(rows)
        self._remove()

    # --- boots

    def keep_boot(self, boot: Boot) -> None:
        """See ``DeadLetters.keep_boot``."""
        self._use(lambda store: store.keep_boot(boot))

    def kept_boots(self) -> Sequence[Boot]:
        """See ``DeadLetters.kept_boots``."""
        return self._try(lambda store: store.boots(), [])

    def drop_boot(self, boot_id: UUID) -> None:
        """See ``DeadLetters.drop_boot``."""
        self._try(lambda store: store.drop_boot(boot_id), None)

    # --- what earlier runs left

    def _adopt(self, store: LetterStore) -> None:
        for folder in abandoned(self.root, FILE_NAME):
            try:
                self._take_over(folder, store)
            except DeadLettersUnavailable as error:
                log.warning("dead_letters_not_adopted", extra={"why": str(error)})
            finally:
                folder.release()

    def _take_over(self, folder: SpoolFolder, store: LetterStore) -> None:
        orphan, count = self._opened(folder.path / FILE_NAME), 0
        try:
            is_empty = False
            while not is_empty and count < ADOPTED_AT_MOST:
                rows, new = store.take_from(orphan, ADOPTED_AT_ONCE, self._max_bytes)
                self._found |= new
                count += rows
                is_empty = rows == 0
        finally:
            orphan.close()
        if count:
            log.info("dead_letters_adopted", extra={"folder": str(folder.path), "rows": count})

    # --- the file

    def _use(self, job: Callable[[LetterStore], Answer]) -> Answer:
        """Raises ``DeadLettersUnavailable``."""
        try:
            answer = job(self._opened_store())
        except LettersFull:
            raise
        except DeadLettersUnavailable as error:
            self._blame(error)
            raise
        except OSError as error:
            self._blame(error)
            raise DeadLettersUnavailable(self._reason(error)) from error
        self.trouble = None
        return answer

    def _try(self, job: Callable[[LetterStore], Answer], otherwise: Answer) -> Answer:
        """``otherwise`` in place of an error."""
        try:
            return self._use(job)
        except DeadLettersUnavailable:
            return otherwise

    def _remove(self) -> None:
        if self._removed:
            gone = frozenset(self._removed)
            self._try(lambda store: store.remove(gone), None)
            if self.trouble is None:
                self._removed -= gone

    def _opened_store(self) -> LetterStore:
        if self._store and self._folder and not self._folder.is_there(FILE_NAME):
            log.error("dead_letters_gone", extra={"folder": str(self._folder.path)})
            self.close()
        if self._store is None:
            if self._folder is None:
                self._folder = claim(self.root)
            self._store = self._opened(self._folder.path / FILE_NAME)
            self._read(self._store)
        return self._store

    def _read(self, store: LetterStore) -> None:
        """Once: what is in a file that we have signed is known."""
        is_known = self._is_read if self._owner is None else store.owner() == self._owner
        if not is_known:
            self._found |= store.row_ids()
            self._is_read = True
        if self._owner is not None and not is_known:
            store.sign(self._owner)

    def _opened(self, path: Path) -> LetterStore:
        """The file at ``path``, which is ours; a corrupt one is set aside and begun anew."""
        from .store import LetterStore

        try:
            store = LetterStore(path, patience_s=PATIENCE_S)
            try:
                store.check()
            except BaseException:
                store.close()
                raise
            return store
        except LettersCorrupt:
            _set_aside(path)
            return LetterStore(path, patience_s=PATIENCE_S)

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _blame(self, error: Exception) -> None:
        """After trouble the file is read anew, never trusted, unless somebody else only had it."""
        reason = self._reason(error)
        if not reason.endswith("SQLITE_BUSY"):
            self._close_store()
        if self.trouble != reason:
            log.warning("dead_letters_ailing", extra={"why": reason})
        self.trouble = reason

    def _reason(self, error: Exception) -> str:
        if isinstance(error, OSError):
            return f"{self.root}: {error.strerror or type(error).__name__}"
        return str(error)


def _set_aside(path: Path) -> None:
    aside = f"{path.name}.corrupt-{time.time_ns()}"
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(aside + suffix))
    log.error("dead_letters_corrupt", extra={"set_aside": str(path.with_name(aside))})
