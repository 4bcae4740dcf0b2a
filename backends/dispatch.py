"""Decides what is sent next, when, and what an answer means. All synchronous: state apart from waiting.

Takes the ledger's rows and the outcomes of writes; gives jobs. Every row of a job stays in the ledger,
in flight, until ``settle`` moves it on, so a lost task loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from .batching import BatchingOptions
from .dead_letters import DeadLetter, DeadLetters
from .errors import (
    DeadLettersUnavailable,
    Rejection,
    SinkBatchRejected,
    SinkRetryable,
    SinkRowsRejected,
)
from .health import SinkHealth
from .job import Disk, Job, WaitingJobs
from .ledger import Home, Ledger
from .pace import Pace
from .record import Batch
from .retry import CAP_DRAINING_S, CAP_RUNNING_S, Backoff
from .sink import Committed

log = logging.getLogger("backends.dispatch")

MAX_STATEMENTS_PER_TURN = 64
"""After so many retries and pieces in a row a batch of fresh rows has its turn."""
PROBE_ROWS = 10
EXPIRED = "expired"
"""The code of a dead letter that no sink refused: it was on the disk for too long."""


class Dispatcher:
    """The plan of one writer. ``give_up_after_s`` (None: never) abandons a batch that fails for so long."""

    def __init__(
        self,
        ledger: Ledger,
        options: BatchingOptions,
        *,
        sink: str,
        dead_letters: DeadLetters,
        backoff: Backoff,
        give_up_after_s: float | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.health = SinkHealth(sink, backoff)
        self.flush_to = 0
        self.is_halted = False
        self.is_closed = False
        self._full: dict[str, str] = {}
        self._ledger = ledger
        self._options = options
        self._sink = sink
        self._dead_letters = dead_letters
        self._backoff = backoff
        self._give_up_after_s = give_up_after_s
        self._disk = disk
        self._waiting = WaitingJobs()
        self._draining = False
        self._statements = 0
        self._pace = Pace(options)
        self._fetch_at = 0.0
        self._fetches_failed = 0

    # --- what next

    def next(self, now: float) -> Job | None:
        """The job to send now, or None. The caller has a free slot for it."""
        if self.is_halted or not self.health.admits(now):
            return None
        probes = self.health.breaker.state == "open" and not self.health.ignores_breaker
        job = self._probe(now) if probes else self._choose(now)
        if job is not None:
            self.health.breaker.attempt()
        return job

    def wake_at(self) -> float | None:
        """When ``next`` may have something without anything else happening; None: not before a change."""
        if self.is_halted:
            return None
        breaker = self.health.breaker
        if not self.health.ignores_breaker and breaker.state != "closed":
            return breaker.probe_at if breaker.state == "open" and self._can_probe else None
        times = self._waiting.times()
        if head := self._ledger.queue_head:
            times.append(head.accepted_at + self._pace.linger_s)
        return min(times, default=None)

    def is_ripe(self, now: float) -> bool:
        """Whether the queue's rows make a batch: enough of them, or old enough, or waited for."""
        head = self._ledger.queue_head
        if head is None:
            return False
        return (
            self._draining
            or head.row.seq <= self.flush_to
            or self.is_batch_full
            or now >= head.accepted_at + self._pace.linger_s
        )

    @property
    def is_batch_full(self) -> bool:
        """Whether the queue's rows fill a batch."""
        return (
            self._ledger.queued >= self._pace.max_rows or self._ledger.queue_bytes >= self._options.max_bytes
        )

    def drain(self, now: float) -> None:
        """Stopping begins: no linger, every retry at once; an open breaker gets one probe, the last."""
        self._draining = True
        self.health.drain(now)
        self._waiting.hurry(now)

    def halt(self) -> None:
        """Send nothing more; answers to what is under way still count."""
        self.is_halted = True

    def close(self) -> None:
        """Nothing more is sent, and late answers change nothing: the rows have been accounted for."""
        self.is_halted = self.is_closed = True

    # --- the disk

    def fetch_at(self) -> float | None:
        """From when on rows of the disk may be sent (loop time); None while the sink is unwell or the
        memory is short."""
        is_well = (
            self.health.breaker.state == "closed" and not self._draining and self._ledger.room.is_relaxed
        )
        return self._fetch_at if is_well else None

    def fetched(self, batch: Batch, now: float, home: Home = "spooled") -> None:
        """A batch came back from the disk: send it as any other. The disk keeps it until it is settled."""
        self._ledger.fetch(batch, now, home)
        self._waiting.add(Job(batch, since=now, not_before=now))

    def take(self, is_wanted: Callable[[Job], bool]) -> Job | None:
        """The oldest waiting job that ``is_wanted``, which is then the caller's."""
        return self._waiting.take(lambda job: self._is_ours_alone(job) and is_wanted(job))

    def spilled(self, job: Job) -> None:
        """The spool has the job's rows."""
        if job.batch is not None and self._ledger.holds(job.batch) and not self.is_closed:
            self._ledger.spool(job.batch)

    def not_spilled(self, job: Job, now: float) -> None:
        """The disk did not take the job's rows: they are the sink's again, unless it had its chance."""
        if job.must_spill and job.batch is not None and self._ledger.holds(job.batch) and not self.is_closed:
            self._ledger.abandon(job.batch)
        else:
            self.keep(job, now)

    def expired(self, batch: Batch, now: float) -> None:
        """A batch of the spool that the sink has not taken for too long: to the dead letters with it."""
        self._ledger.fetch(batch, now)
        reasons = [Rejection(EXPIRED, "the sink did not take it for spool.max_age_s")] * len(batch.rows)
        self._bury(Job(batch, since=now), batch, reasons, now)

    def oldest_since(self) -> float | None:
        """Since when the oldest job that waits, and is not on the disk, has been tried."""
        return min((job.since for job in self._waiting if self._is_ours_alone(job)), default=None)

    def _is_ours_alone(self, job: Job) -> bool:
        return job.batch is not None and self._ledger.home(job.batch) is None

    # --- what an answer means

    def settle(self, job: Job, outcome: object, now: float) -> None:
        """Move the rows of ``job`` on as ``outcome`` says. Late answers, after the close, change nothing."""
        if self.is_closed:
            return
        if job.batch is None:
            self._settle_ping(outcome, now)
        elif isinstance(outcome, Committed):
            self._committed(job.batch, outcome)
        elif isinstance(outcome, SinkRowsRejected):
            self._rows_rejected(job, job.batch, outcome, now)
        elif isinstance(outcome, SinkBatchRejected):
            self._batch_rejected(job, job.batch, outcome, now)
        else:
            self._failed(job, job.batch, outcome, now)

    def keep(self, job: Job, now: float) -> None:
        """Send ``job`` again, whatever went wrong, unless its rows have been settled."""
        if job.batch is not None and self._ledger.holds(job.batch) and not self.is_closed:
            self._wait(job, now)

    def _committed(self, batch: Batch, outcome: Committed) -> None:
        self.health.answered()
        self._pace.quicken()
        self._commit(batch, outcome.duplicates)

    def _commit(self, batch: Batch, duplicates: int) -> None:
        home = self._ledger.home(batch)
        self._forget(batch)
        if home == "dead_lettered":
            self._dead_letters.remove([row.id for row in batch.rows])
        if home is not None:
            self._fetches_failed, self._fetch_at = 0, 0.0
        self._ledger.commit(batch, duplicates)

    def _rows_rejected(self, job: Job, batch: Batch, outcome: SinkRowsRejected, now: float) -> None:
        rejected = sorted(outcome.rejected.items())  # rows keep their order, whatever the sink's
        refused = {index: why for index, why in rejected if 0 <= index < len(batch.rows)}
        if not refused:  # a sink that names no row of ours has named no culprit
            return self._batch_rejected(job, batch, SinkBatchRejected(outcome.code, outcome.message), now)
        self.health.answered()
        rest = [index for index in range(len(batch.rows)) if index not in refused]
        parts = self._ledger.divide(batch, [list(refused), rest])
        bad = replace(job, batch=parts[0])
        self._bury(bad, parts[0], list(refused.values()), now)
        if rest and outcome.stored is not None:
            self._commit(parts[1], outcome.stored.duplicates)
        elif rest:
            self._waiting.add(replace(job, batch=parts[1], attempts=0, not_before=now))

    def _batch_rejected(self, job: Job, batch: Batch, outcome: SinkBatchRejected, now: float) -> None:
        self.health.answered()
        if len(batch.rows) == 1:
            return self._bury(job, batch, [Rejection(outcome.code, outcome.message)], now)
        middle = len(batch.rows) // 2
        halves = self._ledger.divide(batch, [range(middle), range(middle, len(batch.rows))])
        self._waiting.add(*(replace(job, batch=half, attempts=0, not_before=now) for half in halves))

    def _bury(self, job: Job, batch: Batch, reasons: Sequence[Rejection], now: float) -> None:
        letters = [
            DeadLetter(
                row=row, sink=self._sink, code=why.code, message=why.message, attempts=job.attempts + 1
            )
            for row, why in zip(batch.rows, reasons, strict=True)
        ]
        try:
            self._dead_letters.add(letters)
        except DeadLettersUnavailable as error:
            self._full["dead_letters_full"] = str(error)
            return self._wait(job, now) if self._ledger.home(batch) is None else self._go_home(batch, now)
        self._full.pop("dead_letters_full", None)
        self._forget(batch)
        self._ledger.dead_letter(batch)

    def _failed(self, job: Job, batch: Batch, outcome: object, now: float) -> None:
        self.health.failed(outcome, now)
        if isinstance(outcome, TimeoutError):
            self._pace.shorten(len(batch.rows))
        if isinstance(outcome, SinkRetryable) and outcome.slow_down:
            self._pace.slow_down()
        if self._ledger.home(batch) is not None:
            self._go_home(batch, now)
        elif self._give_up_after_s is None:
            self._wait(job, now)
        elif self.health.breaker.state != "closed":
            self._give_up_everything(job, now)
        elif now >= job.since + self._give_up_after_s:
            self._give_up(job, now)
        else:
            self._wait(job, now)

    def _give_up_everything(self, job: Job, now: float) -> None:
        """The sink is down, and every caller is waiting for an answer now."""
        given_up = self._waiting.take_all()
        while batch := self._ledger.claim(self._options.max_rows, self._options.max_bytes):
            given_up.append(Job(batch, now))
        for each in [job, *given_up]:
            self._give_up(each, now)

    def _give_up(self, job: Job, now: float) -> None:
        """No longer the sink's within its call: the spool's if there is one, else nobody's."""
        if job.batch is None:
            return
        if self._ledger.home(job.batch) is not None:
            self._go_home(job.batch, now)
        elif self._disk is None:
            self._ledger.abandon(job.batch)
        else:
            job.must_spill = True
            self._waiting.add(job)

    def _go_home(self, batch: Batch, now: float) -> None:
        """Back to the disk, where it is safe; it is fetched again, after a while."""
        self._fetches_failed += 1
        self._fetch_at = now + self._backoff.delay(self._fetches_failed, CAP_RUNNING_S)
        self._ledger.go_home(batch)

    def _forget(self, batch: Batch) -> None:
        """The spool need not keep these rows: to be told in the same step in which they are settled."""
        if self._disk is None:
            return
        rows = [row.id for row in batch.rows]
        if self._ledger.home(batch) == "spooled" or self._disk.holds_any(rows):
            self._disk.forget(rows)

    def _wait(self, job: Job, now: float) -> None:
        job.attempts += 1
        cap = CAP_DRAINING_S if self._draining else CAP_RUNNING_S
        job.not_before = now + self._backoff.delay(job.attempts, cap)
        self._waiting.add(job)

    def _settle_ping(self, outcome: object, now: float) -> None:
        if isinstance(outcome, BaseException):
            self.health.failed(outcome, now)
        else:
            self.health.answered()

    @property
    def _can_probe(self) -> bool:
        """While draining only rows are a probe; a row that comes later wakes us."""
        return not self._draining or bool(self._waiting) or self._ledger.queue_head is not None

    # --- choosing

    def _choose(self, now: float) -> Job | None:
        fresh_first = self._statements >= MAX_STATEMENTS_PER_TURN
        if fresh_first and (job := self._fresh(now)):
            return job
        if job := self._waiting.take_due(now):
            self._statements += 1
            return job
        return self._fresh(now)

    def _fresh(self, now: float) -> Job | None:
        if not self.is_ripe(now):
            return None
        self._statements = 0
        batch = self._ledger.claim(self._pace.max_rows, self._options.max_bytes)
        return Job(batch, since=now)

    def _probe(self, now: float) -> Job | None:
        """The one attempt of a half-open breaker: the smallest batch there is, else a ping."""
        if job := self._waiting.take_smallest():
            return job
        if self._ledger.queue_head is not None:
            max_rows = min(PROBE_ROWS, self._pace.max_rows)
            return Job(self._ledger.claim(max_rows, self._options.max_bytes), since=now)
        return None if self._draining else Job(None, since=now)

    def reasons(self, now: float) -> Mapping[str, str]:
        """Why the writer is degraded, with a word on each: empty when all is well."""
        oldest = self._ledger.oldest()
        age = now - oldest.accepted_at if oldest else 0.0
        late = {"batch_overdue": f"{age:.0f} s"} if age > self._options.batch_deadline_s else {}
        refused = self._ledger.counts().dead_lettered
        letters = {"dead_letters": f"{refused} rows; see `tallygate logs dead-letters`"} if refused else {}
        return {**self.health.degraded, **self._full, **letters, **late}
