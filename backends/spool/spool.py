"""The disk beside the memory: takes rows in groups, one commit for all that came meanwhile.

Takes intents, rows and batches from the event loop; gives futures that are done when the disk has them.
One thread works on the file. Trouble never raises into a call: it is a future that fails, a reason to show,
and a file that is tried again after a pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import TypeVar
from uuid import UUID

from ..errors import SpoolUnavailable
from ..record import MAX_ROW_BYTES, Batch, UsageRecord
from ..waiting import wait_for_end
from .changes import Changes
from .disk import FULL, SpoolDisk
from .options import SpoolOptions

log = logging.getLogger("backends.spool")

LAST_CHANCE_S = 0.75
"""How long a dying process waits for its disk; a stop has spilled before, with the time it had."""
OPEN_S = 10.0
KEEP_S = 5.0
CLOSE_S = 0.125
"""Each of two steps: with ``LAST_CHANCE_S``, half of what a stop keeps for closing."""
SHOWN_S = 30.0
"""How long a call that went on without its journal is a reason to show."""
PATIENCE_S = 1.0
"""A disk that takes longer is ailing, and one that failed is left alone for so long."""
Answer = TypeVar("Answer")


class Spool:
    """One instance's spool. Use from one event loop; ``keep_now`` alone also blocks."""

    def __init__(self, options: SpoolOptions) -> None:
        self.options = options
        self._disk = SpoolDisk(options)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._now: Callable[[], float] = float
        self._fault = ""
        self._again_at = 0.0
        self._is_closed = False
        self._running: list[float] = []
        self._skipped = 0
        self._skipped_at: float | None = None
        self._pending = Changes()
        self._forgotten: set[UUID] = set()
        self._held: set[UUID] = set()
        """Rows in memory that the disk has too, or may have."""
        self._waiting: list[asyncio.Future[None]] = []
        self._committing: asyncio.Task[None] | None = None

    # --- looking

    @property
    def is_write_ahead(self) -> bool:
        """Whether every call is journalled before it costs anything."""
        return self.options.mode == "write_ahead"

    @property
    def room(self) -> int:
        """How many more rows of the largest size there is room for; 0 while the disk is ailing."""
        return 0 if self._fault else max(0, self._disk.room_bytes // MAX_ROW_BYTES)

    @property
    def is_stuck(self) -> bool:
        """Whether the disk has been silent for longer than any call would wait."""
        return bool(self._running) and self._now() > min(self._running) + PATIENCE_S

    def note_skipped(self) -> None:
        """A call goes on without its journal: kill -9 may lose it now."""
        if not self._is_skipping:
            log.warning("journal_skipped", extra={"calls_before": self._skipped})
        self._skipped, self._skipped_at = self._skipped + 1, self._now()

    @property
    def _is_skipping(self) -> bool:
        return self._skipped_at is not None and self._now() < self._skipped_at + SHOWN_S

    @property
    def _trouble(self) -> str:
        late = f"{self._skipped} calls went on without their journal" if self._is_skipping else ""
        return self._fault or ("no answer" if self.is_stuck else late)

    @property
    def _is_pausing(self) -> bool:
        return bool(self._fault) and self._now() < self._again_at

    @property
    def _is_refusing(self) -> bool:
        return self.is_stuck or self._is_pausing or self._is_closed

    def reasons(self) -> dict[str, str]:
        """What the disk can no longer promise: reasons for readiness, each with a word on it."""
        reasons = {}
        if trouble := self._trouble:
            reasons["spool_ailing"] = trouble
        if not self._fault and not self.room:
            reasons["spool_full"] = (
                f"spool.max_bytes or spool.min_free_bytes of {self.options.path} is reached"
            )
        if self._disk.damaged or self._disk.set_aside:
            aside = f"; see {self._disk.set_aside}" if self._disk.set_aside else ""
            reasons["spool_damaged"] = f"{self._disk.damaged} rows could not be read{aside}"
        return reasons

    def take_found(self) -> int:
        """How many rows of earlier runs came onto our disk since this was last asked."""
        return self._disk.take_found()

    def take_lost(self) -> int:
        """How many rows the disk turned out to have lost since this was last asked."""
        return self._disk.take_lost()

    # --- opening and closing

    async def open(self, boot_id: UUID, except_for: Collection[UUID] = ()) -> None:
        """Claim a folder and take over those of the dead, without the rows ``except_for``; what was found
        there ``take_found`` tells. Trouble is shown, not raised, and a disk that takes longer than
        ``OPEN_S`` is not waited for: the gateway starts with its disk ailing."""
        self._now = asyncio.get_running_loop().time
        self._disk.owner, self._disk.except_for = str(boot_id), except_for
        looking = asyncio.get_running_loop().create_task(self.look_after(), name="spool open")
        await asyncio.wait({looking}, timeout=OPEN_S)

    async def look_after(self, except_for: Collection[UUID] = ()) -> None:
        """Try whether the disk can be written, and take over what dead siblings left. May be repeated."""
        if except_for:
            self._disk.except_for = {*self._disk.except_for, *except_for}
        try:
            await self._run(self._disk.sign)
            while not await self._run(self._disk.adopt):
                pass  # others have their turn on the thread
        except SpoolUnavailable:
            return

    async def close(self) -> None:
        """Write what is pending, let go of file and folder."""
        if self._committing is not None:
            await asyncio.wait({self._committing}, timeout=CLOSE_S)
        self._is_closed = True
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._disk.close)
        self._thread.shutdown(wait=False)
        await asyncio.wait({closing}, timeout=CLOSE_S)

    # --- writing

    def intend(self, row: UsageRecord) -> asyncio.Future[None]:
        """Journal a call that is about to begin. The future raises ``SpoolUnavailable``."""
        if self._is_refusing:
            return self._refused()
        self._pending.intents.append(row)
        self._held.add(row.id)
        return self._commit_soon()

    def journal(self, row: UsageRecord) -> asyncio.Future[None]:
        """Journal a row in place of its intent. The future raises ``SpoolUnavailable``."""
        if self._is_refusing:
            return self._refused()
        self._pending.rows.append(row)
        self._held.add(row.id)
        return self._commit_soon()

    async def keep(self, batch: Batch, *, is_numbered: bool = False) -> bool:
        """Keep a batch under its id; whether the disk has it, in ``KEEP_S`` seconds at most. If not, its rows
        are still the caller's, and are not given back from here. ``is_numbered``: it is there already."""
        if self._is_refusing:
            return False
        ids = {row.id for row in batch.rows}
        self._held |= ids
        self._take_back(ids)
        (self._pending.numbered if is_numbered else self._pending.batches).append(batch)
        kept = self._commit_soon()
        await wait_for_end(kept, KEEP_S)
        if not kept.done() or kept.exception():
            return False
        self._held -= ids
        return True

    def _take_back(self, ids: set[UUID]) -> None:
        """What was to be forgotten of these is not."""
        if ids & self._forgotten:
            self._forgotten -= ids
            self._pending.dropped_rows = [each for each in self._pending.dropped_rows if each not in ids]

    def holds_any(self, rows: Iterable[UUID]) -> bool:
        """Whether the disk has any of ``rows``, which are in memory, too, or may have it."""
        return not self._held.isdisjoint(rows)

    def forget(self, rows: Iterable[UUID]) -> None:
        """These rows are safe elsewhere. They are not given again while we run; after a crash they may be,
        which changes nothing."""
        ids = list(rows)
        self._forgotten.update(ids)
        self._held.difference_update(ids)
        self._pending.dropped_rows.extend(ids)
        self._drop_soon()

    def forget_intent(self, row_id: UUID) -> None:
        """The call never began."""
        if row_id in self._held:
            self._held.discard(row_id)
            self._pending.dropped_intents.append(row_id)
            self._drop_soon()

    def keep_now(self, batches: Sequence[Batch]) -> list[Batch]:
        """Keep ``batches`` before returning, blocking for at most ``LAST_CHANCE_S``; those that are kept.
        For the end of a process, where nothing else runs any more: here ``max_bytes`` does not count, for
        what memory held is bounded too."""
        rest, self._pending = self._pending, Changes()
        changes = [(None, rest), *((batch, Changes(batches=[batch])) for batch in batches)]
        jobs = [(batch, self._submitted(each)) for batch, each in changes if each]
        wait([job for _, job in jobs if job], LAST_CHANCE_S)
        for _, job in jobs:
            if job is not None:
                job.cancel()  # what has not begun by now never does: its rows are told to be abandoned
        kept = [batch for batch, job in jobs if batch is not None and self._is_kept(job)]
        if len(kept) < len(batches):
            self._blame(self._fault or "no answer in time")
        return kept

    def _submitted(self, changes: Changes) -> Future[None] | None:
        job = partial(self._disk.attempt, partial(self._disk.apply, changes, is_last=True))
        with suppress(RuntimeError):  # the thread has been let go
            return self._thread.submit(job)
        return None

    def _is_kept(self, job: Future[None] | None) -> bool:
        return job is not None and job.done() and not job.cancelled() and job.exception() is None

    # --- reading

    async def next_batch(self) -> Batch | None:
        """The next batch in the file, round and round; None when there is none. Raises
        ``SpoolUnavailable``. Cancelling takes nothing."""
        return await self._run(partial(self._disk.next_batch, self._not_ours_to_give()), proves=False)

    async def first_batch(self) -> Batch | None:
        """The oldest batch in the file, as ``next_batch``."""
        return await self._run(partial(self._disk.first_batch, self._not_ours_to_give()), proves=False)

    def _not_ours_to_give(self) -> frozenset[UUID]:
        return frozenset(self._forgotten | self._held)

    # --- one commit for many

    def _refused(self) -> asyncio.Future[None]:
        """The answer of a disk that is ailing: what waits for it must not grow without a bound."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        _end(done, SpoolUnavailable(self._fault or "no answer"))
        return done

    def _commit_soon(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append(done)
        if self._committing is None or self._committing.done():
            self._committing = loop.create_task(self._commit(), name="spool commit")
        return done

    def _drop_soon(self) -> None:
        if not self._is_refusing:  # else with what comes once the disk is well
            self._commit_soon()

    async def _commit(self) -> None:
        while self._pending:
            changes, self._pending = self._pending, Changes()
            waiting, self._waiting = self._waiting, []
            error = await self._applied(changes)
            if error is None or str(error) == FULL:
                self._forgotten.difference_update(changes.dropped_rows)
            else:  # what need not be kept any longer waits for the next one who comes
                self._pending.dropped_rows[:0] = changes.dropped_rows
                self._pending.dropped_intents[:0] = changes.dropped_intents
            for done in waiting:
                _end(done, error)
            if error and not self._pending.grows:
                return

    async def _applied(self, changes: Changes) -> SpoolUnavailable | None:
        try:
            await self._run(partial(self._disk.apply, changes))
        except SpoolUnavailable as error:
            return error
        return None

    # --- on the thread

    async def _run(self, job: Callable[[], Answer], *, proves: bool = True) -> Answer:
        """``proves``: success means that the disk is well."""
        if self._is_closed or self._is_pausing:
            raise SpoolUnavailable(self._fault or "closed")
        began = self._now()
        self._running.append(began)
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._thread, self._disk.attempt, job)
        except SpoolUnavailable as error:
            self._again_at = self._now() + PATIENCE_S
            if str(error) != FULL:
                self._blame(str(error))
            raise
        finally:
            self._running.remove(began)
        if proves:
            self._fault = ""
        return answer

    def _blame(self, trouble: str) -> None:
        if self._fault != trouble:
            log.warning("spool_ailing", extra={"why": trouble})
        self._fault = trouble


def _end(done: asyncio.Future[None], error: SpoolUnavailable | None) -> None:
    if done.done():
        return
    if error is None:
        return done.set_result(None)
    done.set_exception(error)
    done.exception()  # seen, whether or not anybody looks at it
