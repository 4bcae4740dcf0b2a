"""What an answer means, decided without waiting: answers that are odd, late or partial."""

from __future__ import annotations

from random import Random

import pytest
from uuid_utils.compat import uuid7

from backends import BatchingOptions
from backends.dispatch import Dispatcher
from backends.errors import Rejection, SinkBatchRejected, SinkFatal, SinkRetryable, SinkRowsRejected
from backends.job import Job
from backends.ledger import Ledger
from backends.record import row_bytes
from backends.reports import LedgerCounts
from backends.retry import Backoff
from backends.room import Room
from backends.sink import Committed
from backends.testing import make_record
from backends.testing.rig import SEED, LetterBox

WHY = Rejection("22021", "not storable")


class Desk:
    """A dispatcher with rows in its ledger, driven by hand."""

    def __init__(self, rows: int = 4, **options: float) -> None:
        self.ledger = Ledger(uuid7(), Room(1000, 10**9))
        self.box = LetterBox()
        backoff = Backoff(Random(SEED))
        limits = BatchingOptions.model_validate({"linger_s": 0, **options})
        self.dispatcher = Dispatcher(self.ledger, limits, sink="acme", dead_letters=self.box, backoff=backoff)
        for _ in range(rows):
            assert self.ledger.room.admit()
            self.ledger.accept(row := make_record(), uuid7(), row_bytes(row), now=0.0)

    def next(self, now: float = 0.0) -> Job:
        job = self.dispatcher.next(now)
        assert job is not None
        return job

    @property
    def counts(self) -> LedgerCounts:
        counts = self.ledger.counts()
        assert counts.unaccounted == 0
        return counts


def test_rows_beside_a_refused_one_are_committed_when_the_sink_says_that_it_stored_them() -> None:
    desk = Desk()

    desk.dispatcher.settle(desk.next(), SinkRowsRejected({1: WHY}, stored=Committed(2, 1)), now=0.0)

    counts = desk.counts
    assert (counts.committed, counts.duplicates, counts.dead_lettered) == (2, 1, 1)
    assert desk.dispatcher.next(0.0) is None


def test_rows_beside_a_refused_one_are_sent_again_under_a_new_id_when_it_stored_nothing() -> None:
    desk = Desk()
    job = desk.next()

    desk.dispatcher.settle(job, SinkRowsRejected({0: WHY, 3: WHY}), now=0.0)

    again = desk.next()
    assert again.batch is not None and job.batch is not None
    assert again.batch.rows == job.batch.rows[1:3] and again.batch.id != job.batch.id
    assert [letter.row for letter in desk.box.letters] == [job.batch.rows[0], job.batch.rows[3]]


@pytest.mark.parametrize("indexes", [(), (4, -1, 99)])
def test_a_sink_that_names_no_row_of_the_batch_has_named_no_culprit(indexes: tuple[int, ...]) -> None:
    desk = Desk()

    desk.dispatcher.settle(desk.next(), SinkRowsRejected(dict.fromkeys(indexes, WHY)), now=0.0)

    assert [desk.next().rows, desk.next().rows] == [2, 2]
    assert not desk.box.letters


def test_an_answer_after_the_close_changes_nothing() -> None:
    desk = Desk()
    job = desk.next()
    desk.dispatcher.close()
    desk.ledger.abandon_all()

    for outcome in (Committed(4), SinkBatchRejected("22021"), SinkRetryable("late"), SinkFatal("late")):
        desk.dispatcher.settle(job, outcome, now=1.0)
    desk.dispatcher.keep(job, now=1.0)

    assert desk.counts == LedgerCounts(accepted=4, abandoned=4)
    assert desk.dispatcher.next(100.0) is None


def test_a_job_whose_settling_failed_is_kept_unless_its_rows_have_gone_where_they_go() -> None:
    desk = Desk()
    job = desk.next()

    desk.dispatcher.keep(job, now=0.0)
    again = desk.next(now=60.0)
    desk.dispatcher.settle(again, Committed(4), now=60.0)
    desk.dispatcher.keep(again, now=60.0)

    assert again.batch is job.batch
    assert desk.dispatcher.next(120.0) is None
    assert desk.counts == LedgerCounts(accepted=4, committed=4)


def test_a_halted_dispatcher_sends_nothing_and_takes_answers() -> None:
    desk = Desk(max_rows=2)
    job = desk.next()

    desk.dispatcher.halt()
    desk.dispatcher.settle(job, Committed(2), now=0.0)

    assert desk.dispatcher.next(100.0) is None and desk.dispatcher.wake_at() is None
    assert desk.counts == LedgerCounts(accepted=4, committed=2, queued=2)


def test_a_dead_letter_says_after_how_many_attempts() -> None:
    desk = Desk(rows=1)
    job = desk.next()
    desk.dispatcher.settle(job, SinkRetryable("not now"), now=0.0)

    desk.dispatcher.settle(desk.next(now=1.0), SinkBatchRejected("22021", "not storable"), now=1.0)

    (letter,) = desk.box.letters
    assert (letter.attempts, letter.code, letter.message, letter.sink) == (2, "22021", "not storable", "acme")
