"""What dead siblings left, taken over piece by piece, each folder under its lock.

Takes the folders below ``spool.path`` whose owners are gone; gives their rows to another file, and removes a
file once all of it is there.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Generator
from uuid import UUID

from .folders import SpoolFolder, abandoned
from .mending import open_or_mend
from .options import SpoolOptions
from .store import SpoolCorrupt, SpoolStore, reason

log = logging.getLogger("backends.spool")


class Orphan:
    """One file whose owner is gone."""

    def __init__(self, folder: SpoolFolder, options: SpoolOptions, except_for: Collection[UUID]) -> None:
        self._folder = folder
        self._rows = 0
        self._store, _ = open_or_mend(folder.database, options.sync)
        self.damaged = self._store.recover(except_for).damaged
        self.is_empty = False

    def move_some(self, store: SpoolStore, on_found: Callable[[int], None]) -> None:
        """Move some rows into ``store``; ``on_found`` is told how many of them are new there. May be
        repeated: what was moved and not dropped is not new."""
        some = self._store.some_rows()
        new = store.take_in(some)
        on_found(new)
        self._rows += new
        self._store.drop(some)
        if not some:
            store.take_in_damaged(self._store)
            store.checkpoint()  # what was safe there from a power cut must be so here
            self.is_empty = True

    def close(self) -> None:
        """Let go of it; what is empty is removed."""
        self._store.close()
        if self.is_empty:
            self._folder.clear()
        if self._rows:
            log.info("spool_adopted", extra={"folder": str(self._folder.path), "rows": self._rows})


def adopt(
    options: SpoolOptions,
    except_for: Collection[UUID],
    store: Callable[[], SpoolStore],
    on_found: Callable[[int], None],
) -> Generator[int, None, None]:
    """All that dead siblings left goes into ``store()``, some rows at each step, but for ``except_for``. Each
    step gives how many more rows were found damaged. A folder that fails is left for another time."""
    for folder in abandoned(options.path):
        try:
            yield from _adopt_one(Orphan(folder, options, except_for), store, on_found)
        except (sqlite3.Error, OSError, SpoolCorrupt) as error:
            log.warning("spool_not_adopted", extra={"folder": str(folder.path), "why": reason(error)})
        finally:
            folder.release()


def _adopt_one(
    orphan: Orphan, store: Callable[[], SpoolStore], on_found: Callable[[int], None]
) -> Generator[int, None, None]:
    try:
        yield orphan.damaged
        while not orphan.is_empty:
            orphan.move_some(store(), on_found)
            store()  # raises if what they were moved into is gone: then theirs stays
            yield 0
    finally:
        orphan.close()
