"""The batching core: takes custody of rows and sees each to the sink, whatever happens meanwhile.

Takes rows through places; gives them, in batches, to one sink; keeps the ledger while they are under way.
Decides nothing about databases, HTTP or files: the ledger and the dispatcher decide, this room waits.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Literal
from uuid import UUID

from uuid_utils.compat import uuid7

from .admission import Admission
from .batching import BatchingOptions
from .boots import BootRegister
from .dead_letters import DeadLetters
from .delivery import Delivery
from .dispatch import Dispatcher
from .drain import Drain
from .errors import StateError
from .ledger import Bucket, Entry, Ledger
from .losses import Losses
from .place import Intent, Place, Receipt, Refused
from .pulse import Pulse
from .record import UsageRecord, row_bytes
from .replay import Replay
from .reports import (
    FlushReport,
    NoObserver,
    StopOutcome,
    StopReport,
    WriterObserver,
    WriterState,
    WriterStats,
)
from .retry import Backoff
from .room import Room
from .sanitise import sanitised, without_texts
from .sink import LogSink
from .spool import Spool
from .spool.traffic import SpoolTraffic

log = logging.getLogger("backends.writer")

STOP_DEADLINE_S = 10.0
CANCEL_GRACE_S = 1.0


class BatchLogWriter:
    """``batch``: rows are gathered and committed in batches, after the call was answered.

    Rows in the queue or in flight are lost with the process at kill -9, never otherwise.
    """

    strategy: Literal["batch", "single"] = "batch"

    def __init__(
        self,
        sink: LogSink,
        options: BatchingOptions,
        *,
        sink_name: str,
        dead_letters: DeadLetters,
        boot_id: UUID | None = None,
        observer: WriterObserver | None = None,
        stop_deadline_s: float = STOP_DEADLINE_S,
        cancel_grace_s: float = CANCEL_GRACE_S,
        rng: Random | None = None,
        give_up_after_s: float | None = None,
        spool: Spool | None = None,
    ) -> None:
        self.boot_id = boot_id or uuid7()
        self._sink_name = sink_name
        self._options = options = options.with_policy(has_spool=spool is not None)
        self._observer = observer or NoObserver()
        self._stop_deadline_s = stop_deadline_s
        self._state: WriterState = "new"
        self._pid = os.getpid()
        self._pulse = Pulse()
        self._room = Room(options.max_queue_rows, options.max_queue_bytes)
        self._ledger = Ledger(self.boot_id, self._room, self._on_settled)
        self._admission = Admission(self, self._room, options, spool, self._pulse, refusal=self._refusal)
        backoff = Backoff(rng or Random())
        self._dispatcher = Dispatcher(
            self._ledger,
            options,
            sink=sink_name,
            dead_letters=dead_letters,
            backoff=backoff,
            give_up_after_s=give_up_after_s,
            disk=spool,
        )
        self._delivery = Delivery(
            sink, sink_name, self._dispatcher, options, self._pulse, self._observer, self._on_death
        )
        self._spool = spool
        self._traffic = self._open_traffic(spool) if spool is not None else None
        self._letters = dead_letters
        self._replay = Replay(
            dead_letters,
            self._ledger,
            self._dispatcher,
            self._pulse,
            on_adopted=self._announce_boots,
            adopts=spool is None,
        )
        self._boots = BootRegister(sink, dead_letters, self.boot_id, backoff, options.attempt_timeout_s)
        self._drain = Drain(
            self._ledger,
            self._dispatcher,
            self._delivery,
            spool,
            self._traffic,
            self._boots,
            options,
            self._pulse,
            cancel_grace_s,
        )
        self._now: Callable[[], float] = _before_start
        self._draining: asyncio.Task[None] | None = None
        self._stop_began_at = 0.0
        self._report: StopReport | None = None
        self._losses = Losses()

    # --- life

    async def start(self) -> None:
        """See ``LogWriter.start``."""
        if self._state != "new":
            raise StateError(f"a writer starts once, this one is {self._state}; build a new one")
        self._now = asyncio.get_running_loop().time
        await self._recover()
        self._state = "running"
        self._delivery.start()
        if self._traffic is not None:
            self._traffic.start()
        self._replay.start(is_draining=lambda: self._state != "running")
        self._announce_boots()

    async def stop(self, deadline_s: float | None = None) -> StopReport:
        """See ``LogWriter.stop``."""
        now = asyncio.get_running_loop().time()
        stop_by = now + (self._stop_deadline_s if deadline_s is None else deadline_s)
        if self._state in ("new", "failed"):
            self._stop_began_at = now
            self._close("drained" if self._ledger.is_empty else "aborted")
        if self._state == "running":
            self._begin_drain(now, stop_by)
        self._drain.stop_by = min(self._drain.stop_by, stop_by)
        self._pulse.beat()
        if self._draining is not None:
            await asyncio.wait({self._draining})
        return self.close_now()

    def close_now(self) -> StopReport:
        """See ``LogWriter.close_now``."""
        if self._report is None:
            self._close("aborted")
        assert self._report is not None
        # Rows that came after the close were accepted and accounted for too.
        return replace(self._report, stats=self.stats(), ids_sample=tuple(self._losses.sample))

    # --- rows in

    def reserve(
        self, row_id: UUID | None = None, intent: Intent | None = None
    ) -> Coroutine[Any, Any, Place | Refused]:
        """See ``LogWriter.reserve``. Refusals: ``not_started``, ``draining``, ``closed``, ``failed``,
        ``forked`` and, without room, ``queue_full``."""
        return self._admission.reserve(row_id)

    def reserve_now(self) -> Place | None:
        """See ``LogWriter.reserve_now``."""
        return self._admission.reserve_now()

    async def put(self, row: UsageRecord) -> None:
        """See ``LogWriter.put``."""
        place = await self.reserve(row.id)
        if isinstance(place, Place):
            place.put(row)

    def _refusal(self) -> str | None:
        if self._pid != os.getpid():
            return "forked"
        if self._state == "running":
            return None
        return "not_started" if self._state == "new" else self._state

    def accept(self, row: UsageRecord, row_id: UUID) -> Receipt | None:
        """Take custody of the row of a place. Never raises."""
        now = self._now()
        try:
            row, size = sanitised(row)
        except Exception:  # custody comes before tidiness: the row goes on without its texts
            log.exception("row_not_clean", extra={"id": str(row_id)})
            row = without_texts(row)
            size = row_bytes(row)
        row = self._ledger.accept(row, row_id, size, now)
        receipt = self._receipt(row)
        if self._state in ("closed", "failed"):
            self._drain.account()
            self._boots.keep(self._ledger.last_seq)
        elif self._room.is_pressed or self._is_due:
            self._pulse.beat()
        return receipt

    @property
    def _is_due(self) -> bool:
        """Whether the collector has something to do for a row that has just come. From the first row on it
        has a timer."""
        is_first = self._ledger.queued == 1
        return (is_first or self._dispatcher.is_batch_full) and self._delivery.has_slot

    def _receipt(self, row: UsageRecord) -> Receipt | None:
        """What the call may wait for; ``batch`` promises nothing before the answer."""
        return None

    async def settled(self, receipt: Receipt) -> None:
        """Wait for a receipt; there are none here."""

    def release(self, row_id: UUID) -> None:
        """Take an unused place back."""
        self._admission.release()

    # --- waiting for rows to go out

    async def flush(self, deadline_s: float) -> FlushReport:
        """See ``LogWriter.flush``."""
        deadline = self._now() + deadline_s
        watermark = self._ledger.last_seq
        self._dispatcher.flush_to = max(self._dispatcher.flush_to, watermark)
        self._pulse.beat()
        while not self._ledger.is_settled(watermark) and self._state not in ("closed", "failed"):
            if self._now() >= deadline:
                break
            await self._pulse.wait_until(deadline)
        left = self._ledger.unsettled(watermark)
        if not left:
            return FlushReport(outcome="ok")
        return FlushReport(outcome="failed" if self._state == "failed" else "timed_out", rows_left=left)

    # --- rows out

    def _on_settled(self, bucket: Bucket, entries: Sequence[Entry]) -> None:
        if bucket in ("committed", "duplicates"):
            now = self._now()
            self._observer.durable([now - entry.accepted_at for entry in entries])
            if bucket == "duplicates":
                self._boots.give_up(self._late_numbers(entries))
        elif bucket == "abandoned":
            self._give_up(entries)
        self._admission.let_in()

    def _late_numbers(self, entries: Sequence[Entry]) -> list[int]:
        """Numbers that crashed calls were given here, though the sink had their rows: they are nobody's."""
        rows = (entry.row for entry in entries)
        return [row.seq for row in rows if row.end_reason == "crash" and row.boot_id == self.boot_id]

    def _give_up(self, entries: Sequence[Entry]) -> None:
        self._boots.give_up(entry.row.seq for entry in entries if entry.row.boot_id == self.boot_id)
        self._losses.name([entry.row.id for entry in entries])

    # --- the end

    def _begin_drain(self, now: float, stop_by: float) -> None:
        self._state = "draining"
        self._stop_began_at, self._drain.stop_by = now, stop_by
        self._dispatcher.drain(now)
        self._admission.dismiss()
        drain = self._drain_and_close()
        self._draining = asyncio.get_running_loop().create_task(drain, name="log-writer drain")

    async def _drain_and_close(self) -> None:
        outcome: StopOutcome = "aborted"
        try:
            outcome = await self._drain.run()
        except Exception:
            log.exception("drain_failed")
        finally:  # also when this task is cancelled: only what is synchronous is safe then
            self._close(outcome)

    def _close(self, outcome: StopOutcome) -> None:
        if self._report is not None:
            return
        self._dispatcher.close()
        self._drain.account()
        if self._state != "new":
            self._boots.give_up(self._traffic.unused_numbers() if self._traffic is not None else ())
            self._boots.keep(self._ledger.last_seq)
        self._state = "closed"
        self._admission.dismiss()
        if self._traffic is not None:
            self._traffic.end()
        self._replay.end()
        self._boots.end()
        self._delivery.end()
        duration_s = self._now() - self._stop_began_at if self._stop_began_at else 0.0
        self._report = StopReport(stats=self.stats(), outcome=outcome, duration_s=duration_s)

    def _open_traffic(self, spool: Spool) -> SpoolTraffic:
        is_call_waiting = self.strategy == "single"  # for the sink
        return SpoolTraffic(
            spool,
            self._ledger,
            self._dispatcher,
            self._options,
            self._pulse,
            spills_early=self._options.on_full == "spill" and not is_call_waiting,
            adopt_letters=lambda: self._replay.adopt(),
        )

    async def _recover(self) -> None:
        """Rows of earlier runs become ours: the letters first, for a row that is in the spool too is one."""
        letters = self._letters.open(self.boot_id)
        self._ledger.recover(len(letters), "dead_lettered")
        if self._spool is not None:
            await self._spool.open(self.boot_id, letters)
            self._ledger.recover(self._spool.take_found())

    def _announce_boots(self) -> None:
        self._boots.announce(self._pulse, is_over=lambda: self._state != "running")

    def _on_death(self, is_cancelled: bool) -> None:
        """The collector is gone. A cancel means that the loop ends: nobody will ever deliver the rest."""
        if is_cancelled:
            self._close("aborted")
        elif self._state == "running":
            self._state = "failed"
            self._pulse.beat()

    # --- looking

    def stats(self) -> WriterStats:
        """See ``LogWriter.stats``."""
        now = self._now()
        oldest = self._ledger.oldest()
        return WriterStats(
            state=self._state,
            strategy=f"{self.strategy}:{self._sink_name}",
            boot_id=self.boot_id,
            counts=self._ledger.counts(),
            shed=dict(self._admission.shed),
            oldest_row_s=now - oldest.accepted_at if oldest else 0.0,
            queue_rows=self._room.rows,
            queue_bytes=self._room.bytes,
            breaker=self._dispatcher.health.breaker.state,
            degraded=self._reasons(now),
            would_refuse=self._admission.would_refuse(),
        )

    def _reasons(self, now: float) -> dict[str, str]:
        reasons = {**self._dispatcher.reasons(now), **self._admission.reasons()}
        if self._spool is not None:
            reasons |= self._spool.reasons()
        if self._letters.trouble:
            reasons["dead_letters_ailing"] = self._letters.trouble
        return reasons


def _before_start() -> float:
    return 0.0
