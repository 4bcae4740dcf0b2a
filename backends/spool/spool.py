"""The disk beside the memory: takes rows in groups, one commit for all that came meanwhile.

Takes intents, rows and batches from the event loop; gives futures that are done when the disk has them.
One thread works on the file. Trouble never raises into a call: it is a future that fails, a reason to show,
and a file that is opened anew at the next try.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar
from uuid import UUID

from ..errors import SpoolUnavailable
from ..record import MAX_ROW_BYTES, Batch, UsageRecord
from .folders import SpoolFolder, abandoned, claim
from .options import SpoolOptions
from .store import Changes, Found, SpoolCorrupt, SpoolStore

log = logging.getLogger("backends.spool")

LAST_CHANCE_S = 1.5
"""How long a dying process waits for its disk."""
Answer = TypeVar("Answer")


class Spool:
    """One instance's spool. Use from one event loop; ``keep_now`` alone also blocks."""

    def __init__(self, options: SpoolOptions) -> None:
        self.options = options
        self.trouble: str | None = None
        self.damaged = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._folder: SpoolFolder | None = None
        self._store: SpoolStore | None = None
        self._size = 0
        self._free = 0
        self._pending = Changes()
        self._forgotten: set[UUID] = set()
        self._waiting: list[asyncio.Future[None]] = []
        self._committing: asyncio.Task[None] | None = None
        self._cursor = 0

    @property
    def is_write_ahead(self) -> bool:
        """Whether every call is journalled before it costs anything."""
        return self.options.mode == "write_ahead"

    @property
    def room(self) -> int:
        """How many more rows of the largest size there is room for; 0 while the disk is ailing."""
        if self.trouble:
            return 0
        left = min(self.options.max_bytes - self._size, self._free - self.options.min_free_bytes)
        return max(0, left // MAX_ROW_BYTES)

    async def open(self) -> int:
        """Claim a folder, take over those of the dead, and say how many rows were found. Trouble is shown,
        not raised: the gateway starts with its disk ailing."""
        try:
            found = await self._run(self._open)
        except SpoolUnavailable:
            return 0
        self.damaged += found.damaged
        return found.rows

    async def adopt(self) -> int:
        """Take over what dead siblings left since; how many rows that is. May be repeated."""
        try:
            return await self._run(lambda _: self._adopt())
        except SpoolUnavailable:
            return 0

    # --- writing

    def intend(self, row: UsageRecord) -> asyncio.Future[None]:
        """Journal a call that is about to begin. The future raises ``SpoolUnavailable``."""
        self._pending.intents.append(row)
        return self._commit_soon()

    def journal(self, row: UsageRecord) -> asyncio.Future[None]:
        """Journal a row in place of its intent. The future raises ``SpoolUnavailable``."""
        self._pending.rows.append(row)
        return self._commit_soon()

    def keep(self, batch: Batch) -> asyncio.Future[None]:
        """Keep a batch under its id. The future raises ``SpoolUnavailable``: then nothing of it is kept."""
        self._pending.batches.append(batch)
        return self._commit_soon()

    def forget(self, rows: Iterable[UUID]) -> None:
        """These rows are safe elsewhere. They are not given again while we run; after a crash they may be,
        which changes nothing."""
        ids = list(rows)
        self._forgotten.update(ids)
        self._pending.dropped_rows.extend(ids)
        self._commit_soon()

    def forget_intent(self, row_id: UUID) -> None:
        """The call never began."""
        self._pending.dropped_intents.append(row_id)
        self._commit_soon()

    def keep_now(self, batches: Sequence[Batch]) -> bool:
        """Keep ``batches`` before returning, blocking for at most ``LAST_CHANCE_S``; whether that succeeded.
        For the end of a process, where nothing else runs any more."""
        changes, self._pending = self._pending, Changes()
        changes.batches.extend(batches)
        try:
            self._thread.submit(self._attempt, partial(self._apply, changes)).result(LAST_CHANCE_S)
        except (SpoolUnavailable, TimeoutError, RuntimeError) as error:
            self._blame(error)
            return False
        return True

    # --- reading

    async def next_batch(self) -> Batch | None:
        """The next batch in the file, round and round; None when there is none. Raises
        ``SpoolUnavailable``. Cancelling takes nothing."""
        found = await self._run(lambda store: store.next_batch(self._cursor) or store.next_batch(0))
        if found is None:
            return None
        self._cursor, batch = found
        rows = tuple(row for row in batch.rows if row.id not in self._forgotten)
        return Batch(batch.id, rows) if rows else None

    def take_lost(self) -> int:
        """How many rows the disk lost since this was last asked: they were accepted, and cannot be read."""
        lost = self._store.lost if self._store is not None else 0
        if self._store is not None:
            self._store.lost = 0
        self.damaged += lost
        return lost

    async def close(self) -> None:
        """Write what is pending, let go of file and folder."""
        if self._committing is not None:
            await asyncio.wait({self._committing}, timeout=LAST_CHANCE_S)
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        await asyncio.wait({closing}, timeout=LAST_CHANCE_S)

    # --- one commit for many

    def _commit_soon(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        done.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # whether or not anybody looks
        self._waiting.append(done)
        if self._committing is None or self._committing.done():
            self._committing = loop.create_task(self._commit(), name="spool commit")
        return done

    async def _commit(self) -> None:
        while self._pending:
            changes, self._pending = self._pending, Changes()
            waiting, self._waiting = self._waiting, []
            error: SpoolUnavailable | None = None
            try:
                await self._run(partial(self._apply, changes))
            except SpoolUnavailable as unavailable:
                error = unavailable
                self._pending.dropped_rows[:0] = changes.dropped_rows
            else:
                self._forgotten.difference_update(changes.dropped_rows)
            for done in waiting:
                if not done.done():
                    done.set_exception(error) if error else done.set_result(None)
            if error:  # what is only to be forgotten waits for the next one who comes
                return

    # --- on the thread

    async def _run(self, job: Callable[[SpoolStore], Answer]) -> Answer:
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, job)
        except SpoolUnavailable as error:
            self._blame(error)
            raise
        self.trouble = None
        return answer

    def _attempt(self, job: Callable[[SpoolStore], Answer]) -> Answer:
        try:
            if self._store is None:
                self._open_store()
            assert self._store is not None
            answer = job(self._store)
            self._measure()
            return answer
        except (sqlite3.Error, OSError, SpoolCorrupt) as error:
            self._close_store()  # after a failed write the file is read anew, never trusted
            raise SpoolUnavailable(_reason(error)) from error

    def _apply(self, changes: Changes, store: SpoolStore) -> None:
        grows = changes.intents or changes.rows or changes.batches
        if grows and min(self.options.max_bytes - self._size, self._free - self.options.min_free_bytes) <= 0:
            raise SpoolUnavailable("full")
        store.apply(changes)

    def _open(self, store: SpoolStore) -> Found:
        self._adopt()
        return store.recover()

    def _open_store(self) -> None:
        if self._folder is None:
            self._folder = claim(self.options.path)
        path = self._folder.database
        try:
            self._store = SpoolStore(path, self.options.sync)
        except SpoolCorrupt:
            self._set_aside()
            self._store = SpoolStore(path, self.options.sync)
        self._measure()

    def _set_aside(self) -> None:
        assert self._folder is not None
        path = self._folder.database
        aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        log.error("spool_corrupt", extra={"set_aside": str(aside)})

    def _adopt(self) -> int:
        """Move what the dead left into our own file: first ours, then theirs goes."""
        assert self._store is not None
        rows = 0
        for folder in abandoned(self.options.path):
            try:
                rows += self._take_over(folder)
            except (sqlite3.Error, OSError, SpoolCorrupt) as error:
                log.warning("spool_not_adopted", extra={"folder": str(folder.path), "why": _reason(error)})
            finally:
                folder.release()
        return rows

    def _take_over(self, folder: SpoolFolder) -> int:
        assert self._store is not None
        orphan = SpoolStore(folder.database, self.options.sync)
        rows, after = 0, 0
        try:
            orphan.recover()
            while (found := orphan.next_batch(after)) is not None:
                after, batch = found
                self._store.apply(Changes(batches=[batch]))
                orphan.apply(Changes(dropped_rows=[row.id for row in batch.rows]))
                rows += len(batch.rows)
        finally:
            orphan.close()
        if rows:
            log.info("spool_adopted", extra={"folder": str(folder.path), "rows": rows})
        return rows

    def _measure(self) -> None:
        assert self._store is not None
        self._size = self._store.size()
        self._free = shutil.disk_usage(self._store.path.parent).free

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _close(self) -> None:
        self._close_store()
        if self._folder is not None:
            self._folder.release()
            self._folder = None

    def _blame(self, error: BaseException) -> None:
        reason = str(error) or type(error).__name__
        if self.trouble != reason:
            log.warning("spool_ailing", extra={"why": reason})
        self.trouble = reason


def _retrieve(done: asyncio.Future[None]) -> None:
    """Whether or not anybody looks at it."""
    if not done.cancelled():
        done.exception()


def _reason(error: BaseException) -> str:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorname", type(error).__name__)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__
