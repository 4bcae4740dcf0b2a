"""A core with a disk beside it, and what can befall the disk.

Takes a folder and options; gives a running writer, and looks into the files that are left.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from backends import BatchLogWriter
from backends.memory import MemoryDatabase, MemorySink
from backends.place import Intent
from backends.spool import Spool, SpoolOptions
from backends.spool.changes import Changes
from backends.spool.disk import SpoolDisk
from backends.spool.store import SpoolStore
from backends.testing import FaultySink, fail, make_record
from backends.testing.rig import LetterBox, Rig, build_writer


@asynccontextmanager
async def spooling(
    folder: Path,
    database: MemoryDatabase | None = None,
    *,
    kind: type[BatchLogWriter] = BatchLogWriter,
    mode: str = "spill",
    fault: Any = None,
    box: LetterBox | None = None,
    max_bytes: int = 1024 * 1024 * 1024,
    min_free_bytes: int = 0,
    max_age_s: float | None = None,
    may_abandon: bool = False,
    **options: Any,
) -> AsyncIterator[Rig]:
    """A writer with a spool in ``folder``; leaving stops it and closes the spool, as the gateway does."""
    box = box or LetterBox()
    sink = FaultySink(MemorySink(MemoryDatabase() if database is None else database))
    sink.always = fault
    spool = Spool(
        SpoolOptions(
            mode=mode,  # type: ignore[arg-type]
            path=folder,
            min_free_bytes=min_free_bytes,
            max_bytes=max_bytes,
            max_age_s=max_age_s,
        )
    )
    rig = Rig(build_writer(sink, box, kind, spool=spool, **options), sink, box)
    await rig.writer.start()
    try:
        yield rig
    finally:
        report = await rig.writer.stop(2)
        await spool.close()
        counts = report.stats.counts
        assert counts.unaccounted == 0 and counts.queued == counts.in_flight == 0, counts


async def left_behind(folder: Path, count: int, **options: Any) -> Path:
    """The file of a run that ended with its sink down."""
    async with spooling(folder, linger_s=0, fault=fail(), **options) as rig:
        await rig.put_many(count)
    (path,) = in_folder(folder, "instance-*/spool.db")
    return path


def spool_of(rig: Rig) -> Spool:
    spool = rig.writer._spool
    assert spool is not None
    return spool


def intent(**fields: Any) -> Intent:
    """What is known of a call before it costs anything, as the row of a call that a crash ended."""
    unknown = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "cost"))
    row = make_record(**{"status": "cancelled", "end_reason": "crash", **unknown, **fields})
    return lambda: row


# --- looking


def rows_on_disk(folder: Path, table: str = "rows") -> int:
    return sum(_count(path, table) for path in in_folder(folder, "instance-*/spool.db"))


def _count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


def in_folder(folder: Path, pattern: str) -> list[Path]:
    return list(folder.glob(pattern))


def copy_of(folder: Path, copy: Path) -> Path:
    """As a crash leaves it: the files as they stand, without anybody closing them."""
    for source in folder.glob("instance-*/spool.db*"):
        target = copy / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return copy


def change(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql, values)


# --- trouble


def io_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_WRITE"
    return error


def failing_disk(error: Exception | None = None) -> AbstractContextManager[object]:
    """Nothing can be written."""
    return patch.object(SpoolStore, "apply", side_effect=error or io_error())


@contextmanager
def one_io_error() -> Iterator[None]:
    """The next write fails, those after it do not."""
    whole = SpoolStore.apply
    errors = [io_error()]

    def apply(store: SpoolStore, changes: Changes) -> None:
        if errors:
            raise errors.pop()
        whole(store, changes)

    with patch.object(SpoolStore, "apply", apply):
        yield


@contextmanager
def lost_replies() -> Iterator[Event]:
    """Batches are written, and it looks as if they were not. The event tells that there was one."""
    whole = SpoolDisk.apply
    was_lost = Event()

    def apply(disk: SpoolDisk, changes: Changes, **options: bool) -> None:
        whole(disk, changes, **options)
        if changes.batches:
            was_lost.set()
            raise OSError(5, "Input/output error")

    with patch.object(SpoolDisk, "apply", apply):
        yield was_lost


def full_disk() -> AbstractContextManager[object]:
    """Somebody else has taken all that was free; to be noticed after the next write."""
    return patch.object(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))


@asynccontextmanager
async def hung_disk(spool: Spool) -> AsyncIterator[None]:
    """A write does not return, and virtual time goes on meanwhile. On leaving it does."""
    loop = asyncio.get_running_loop()
    gate = Event()
    spool._thread.submit(gate.wait)
    in_real_time: Callable[..., Any] = partial(asyncio.SelectorEventLoop.run_in_executor, loop)
    with patch.object(loop, "run_in_executor", in_real_time):
        try:
            yield
        finally:
            gate.set()
            _until_idle(spool)
    for _ in range(10):  # what the thread has answered is heard
        await asyncio.sleep(0)


def _until_idle(spool: Spool) -> None:
    with suppress(RuntimeError):  # it has been let go
        spool._thread.submit(bool).result()
    if spool._thread._shutdown:
        spool._thread.shutdown()
