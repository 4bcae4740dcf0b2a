"""What lies in the files of spools and dead letters, read beside their owners.

Takes the folder in which the instances have theirs; gives a report of each. Makes, mends and moves nothing,
and takes no lock that an owner could miss. A file that cannot be read is reported, never raised.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias
from uuid import UUID
from zlib import crc32

from ..ranges import Ranges
from ..record import Boot
from .folders import PREFIX

Kind: TypeAlias = Literal["spool", "letters"]

SPOOL_FILE = "spool.db"
LETTERS_FILE = "letters.db"
OWNER_FILE = "owner"
"""Beside the lock: the boot id of whoever holds it."""

_LOCK_FILE = "lock"
_BUSY_S = 2.0


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row on disk, as far as it counts. Without a boot it is one that nobody has numbered yet: of a call
    that a crash ended."""

    id: UUID
    boot_id: UUID | None
    seq: int
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """One instance's file. ``owner`` is the boot that has it, where that is known; ``is_owned``: somebody
    has. ``rows`` can be read, ``damaged`` cannot. ``bytes``: on the disk. ``oldest_at``: when the oldest call
    began. ``numbers``: of the rows, by boot. ``boots``: whose end the sink was not told. ``corrupt``: files
    that were set aside. ``trouble``: why the file could not be read, or not all of it."""

    kind: Kind
    folder: Path
    is_owned: bool = False
    owner: UUID | None = None
    rows: int = 0
    intents: int = 0
    batches: int = 0
    damaged: int = 0
    bytes: int = 0
    oldest_at: datetime | None = None
    numbers: Mapping[UUID, Ranges] = field(default_factory=dict)
    boots: tuple[Boot, ...] = ()
    corrupt: tuple[Path, ...] = ()
    trouble: str | None = None


def read_spools(root: Path) -> tuple[FolderReport, ...]:
    """A report of each instance's spool under ``root``; none where nothing is. May be repeated."""
    return tuple(_report("spool", folder, SPOOL_FILE, _count_spool) for folder in _folders(root))


def read_letters(root: Path) -> tuple[FolderReport, ...]:
    """A report of each instance's dead letters under ``root``. May be repeated."""
    return tuple(_report("letters", folder, LETTERS_FILE, _count_letters) for folder in _folders(root))


def spooled_rows(folder: Path) -> Iterator[KeptRow]:
    """The rows in the spool of one instance that are whole, one at a time. Raises ``sqlite3.Error`` and
    ``OSError``."""
    with _opened(folder / SPOOL_FILE) as connection:
        for body, crc in connection.execute("SELECT body, crc FROM rows"):
            if row := _row(body, crc):
                yield row


# --- one folder


class _Tally:
    """What was found so far."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {"rows": 0, "damaged": 0}
        self.oldest_at: datetime | None = None
        self._numbers: dict[UUID, list[int]] = {}

    def add(self, row: KeptRow | None) -> None:
        """Count a row; None is one that cannot be read."""
        self.fields["damaged" if row is None else "rows"] += 1
        if row is None:
            return
        self.see(row)
        if row.boot_id is not None and row.seq > 0:
            self._numbers.setdefault(row.boot_id, []).append(row.seq)

    def see(self, row: KeptRow) -> None:
        """Mind its age."""
        self.oldest_at = min(row.timestamp, self.oldest_at or row.timestamp)

    @property
    def numbers(self) -> dict[UUID, Ranges]:
        return {boot_id: Ranges.of(numbers) for boot_id, numbers in self._numbers.items()}


def _report(
    kind: Kind, folder: Path, name: str, count: Callable[[sqlite3.Connection, _Tally], None]
) -> FolderReport:
    is_owned = _is_owned(folder)
    had_log = _log_of(folder / name).exists()
    tally, trouble = _tally(folder / name, count)
    if not had_log and _log_of(folder / name).exists():  # an owner came while we read what was nobody's
        tally, trouble = _tally(folder / name, count)
    return FolderReport(
        kind=kind,
        folder=folder,
        is_owned=is_owned,
        owner=_owner(folder) if is_owned else None,
        bytes=_bytes(folder, name),
        oldest_at=tally.oldest_at,
        numbers=tally.numbers,
        corrupt=tuple(sorted(_set_aside(folder, name))),
        trouble=trouble,
        **tally.fields,
    )


def _tally(path: Path, count: Callable[[sqlite3.Connection, _Tally], None]) -> tuple[_Tally, str | None]:
    """What can be read of ``path``, and why no more of it."""
    tally = _Tally()
    try:
        if path.exists():
            with _opened(path) as connection:
                connection.execute("BEGIN")  # one moment of the file
                if _one(connection, "SELECT count(*) FROM sqlite_master"):  # else it is just being made
                    count(connection, tally)
    except (sqlite3.Error, OSError, ValueError, TypeError) as error:
        return tally, _reason(error)
    return tally, None


def _count_spool(connection: sqlite3.Connection, tally: _Tally) -> None:
    for body, crc in connection.execute("SELECT body, crc FROM rows"):
        tally.add(_row(body, crc))
    intents = 0
    for body, crc in connection.execute("SELECT body, crc FROM intents"):
        intents += 1
        if row := _row(body, crc):
            tally.see(row)
    tally.fields["intents"] = intents
    tally.fields["batches"] = _one(connection, "SELECT count(DISTINCT batch_id) FROM rows")
    tally.fields["damaged"] += _one(connection, "SELECT count(*) FROM damaged")


def _count_letters(connection: sqlite3.Connection, tally: _Tally) -> None:
    for body, crc in connection.execute("SELECT body, crc FROM letters"):
        tally.add(_row(body, crc))
    boots = connection.execute("SELECT boot_id, started_at, closed_at, last_seq, abandoned FROM boots")
    tally.fields["boots"] = tuple(_boot(*found) for found in boots)


def _one(connection: sqlite3.Connection, sql: str) -> int:
    return int(connection.execute(sql).fetchone()[0])


def _row(body: bytes, crc: int) -> KeptRow | None:
    """The row, or None of a body that is not what was written."""
    try:
        if crc32(body) != crc:
            return None
        values = json.loads(body)
        boot_id = UUID(values["boot_id"]) if values["boot_id"] else None
        moment = datetime.fromisoformat(values["timestamp"])
        return KeptRow(UUID(values["id"]), boot_id, int(values["seq"]), moment)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _boot(boot_id: str, started_at: str, closed_at: str | None, last_seq: int | None, abandoned: str) -> Boot:
    return Boot(
        id=UUID(boot_id),
        started_at=datetime.fromisoformat(started_at).astimezone(UTC),
        closed_at=datetime.fromisoformat(closed_at).astimezone(UTC) if closed_at else None,
        last_seq=last_seq,
        abandoned=abandoned,
    )


# --- files


def _folders(root: Path) -> list[Path]:
    return sorted(folder for folder in root.glob(f"{PREFIX}*") if folder.is_dir())


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write. A log beside the file belongs to a process that lives, or that was
    killed: with its index both are read as they are, without it from a copy, as the driver would make one.
    Where there is no log, the file is all there is."""
    log = _log_of(path)
    if log.exists() and path.with_name(f"{path.name}-shm").exists():
        with _connected(path, "mode=ro") as connection:
            yield connection
    elif log.exists():
        with TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            shutil.copyfile(path, copy)
            shutil.copyfile(log, copy.with_name(log.name))
            with _connected(copy, "mode=rw") as connection:
                yield connection
    else:
        with _connected(path, "mode=ro&immutable=1") as connection:
            yield connection


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


@contextmanager
def _connected(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?{mode}"
    with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)) as connection:
        yield connection


def _is_owned(folder: Path) -> bool:
    """Whether somebody holds the lock. It is asked for as a reader, for a moment, which no owner notices."""
    try:
        lock = os.open(folder / _LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _owner(folder: Path) -> UUID | None:
    try:
        return UUID((folder / OWNER_FILE).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None


def _set_aside(folder: Path, name: str) -> Iterator[Path]:
    for path in folder.glob(f"{name}.corrupt-*"):
        if not path.name.endswith(("-wal", "-shm")):
            yield path


def _bytes(folder: Path, name: str) -> int:
    sizes = 0
    for suffix in ("", "-wal"):
        try:
            sizes += (folder / f"{name}{suffix}").stat().st_size
        except OSError:
            continue
    return sizes


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, sqlite3.Error):
        return f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}"
    return f"{type(error).__name__}: {error}"
