"""A file is opened; a damaged one is set aside, and what can still be read of it goes into a new one."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Literal

from .salvage import salvage
from .store import SpoolCorrupt, SpoolStore

SUFFIXES = ("-wal", "-shm", "")
"""Of the files that SQLite keeps beside its own."""

log = logging.getLogger("backends.spool")


def open_or_mend(path: Path, sync: Literal["normal", "full"]) -> tuple[SpoolStore, Path | None]:
    """The file at ``path``, and where a damaged one was set aside. Raises what ``SpoolStore`` raises. May be
    ended at any time, and repeated: a damaged file keeps its name until all that is good is in a new one."""
    fresh = path.with_name(f"{path.name}.new")
    if fresh.exists() and not path.exists():
        fresh.rename(path)
    try:
        return SpoolStore(path, sync), _newest_aside(path)
    except SpoolCorrupt:
        saved = _save(path, fresh)
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    _rename(path, aside)
    _rename(fresh, path)
    log.error("spool_corrupt", extra={"set_aside": str(aside), "rows_saved": saved})
    return SpoolStore(path, sync), aside


def _newest_aside(path: Path) -> Path | None:
    """A file that was set aside stays a reason to look at it until somebody takes it away."""
    found = path.parent.glob(f"{path.name}.corrupt-*")
    return max((each for each in found if not each.name.endswith(("-wal", "-shm"))), default=None)


def _save(damaged: Path, fresh: Path) -> int:
    for suffix in SUFFIXES:
        fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
    store = SpoolStore(fresh, "full")
    try:
        return salvage(damaged, store)
    finally:
        store.close()


def _rename(path: Path, name: Path) -> None:
    """The log first: a file that is there without it is still damaged, one that has it may look whole."""
    for suffix in SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(name.with_name(name.name + suffix))
