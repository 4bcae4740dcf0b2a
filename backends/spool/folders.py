"""One folder per instance under ``spool.path``, each under a lock that ends with its process.

Takes the path; gives a folder that nobody else has. A folder whose owner died is free, and whoever comes
next takes it over with all that is in it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

PREFIX = "instance-"
LOCK = "lock"


@dataclass(frozen=True, slots=True)
class SpoolFolder:
    """A folder of ours for as long as ``_lock`` is open."""

    path: Path
    _lock: int

    @property
    def database(self) -> Path:
        """Where the rows are."""
        return self.path / "spool.db"

    def is_there(self, holding: str = "spool.db") -> bool:
        """Whether the folder, with its file, is still the one that was locked: nobody took it away."""
        folder = os.fspath(self.path)
        try:
            os.stat(os.path.join(folder, holding))
            return os.path.samestat(os.fstat(self._lock), os.stat(os.path.join(folder, LOCK)))
        except OSError:
            return False

    def clear(self) -> None:
        """Remove the file; all of it is elsewhere."""
        for suffix in ("", "-wal", "-shm"):
            self.database.with_name(self.database.name + suffix).unlink(missing_ok=True)

    def release(self) -> None:
        """Let others have it."""
        os.close(self._lock)


def claim(root: Path) -> SpoolFolder:
    """The first folder that nobody has, made if there is none. Raises ``OSError``."""
    root.mkdir(parents=True, exist_ok=True)
    for folder in _candidates(root):
        if claimed := _try(folder):
            return claimed
    raise AssertionError("there is always one more number")


def abandoned(root: Path, holding: str = "spool.db") -> Iterator[SpoolFolder]:
    """Folders with a file of this name whose owners are gone; each is ours from then on, until it is
    released. Raises ``OSError``."""
    for folder in sorted(root.glob(f"{PREFIX}*")):
        if (folder / holding).exists() and (claimed := _try(folder)):
            yield claimed


def _candidates(root: Path) -> Iterator[Path]:
    for number in count(1):
        yield root / f"{PREFIX}{number}"


def _try(folder: Path) -> SpoolFolder | None:
    """The folder if it is free. One that was there and cannot be locked is somebody else's, of another user
    say: a reason for nobody to be ailing."""
    is_old = folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        if is_old:
            return None
        raise
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return SpoolFolder(folder, lock)
