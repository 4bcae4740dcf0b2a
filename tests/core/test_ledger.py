"""Custody as pure state: every sequence of moves keeps the equation, the bounds and the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from uuid_utils.compat import uuid7

from backends.ledger import Bucket, Entry, Ledger
from backends.record import MAX_ROW_BYTES, Batch, UsageRecord, row_bytes
from backends.reports import LedgerCounts
from backends.room import Room
from backends.sanitise import sanitise
from backends.testing import make_largest_record, make_record

ROOMY = 10**9
ROWS = (make_record(), make_largest_record(), make_largest_record("\U0001f44b"))


def make_ledger(max_rows: int = 100, max_bytes: int = ROOMY) -> Ledger:
    return Ledger(uuid7(), Room(max_rows, max_bytes))


def put(ledger: Ledger, count: int = 1) -> list[UUID]:
    ids = []
    for _ in range(count):
        assert ledger.room.admit()
        ids.append(ledger.accept(row := make_record(), uuid7(), row_bytes(row), now=0.0).id)
    return ids


def test_rows_leave_the_queue_in_the_order_in_which_they_came() -> None:
    ledger = make_ledger()
    ids = put(ledger, 5)

    batches = [ledger.claim(2, ROOMY) for _ in range(3)]

    assert [row.id for batch in batches if batch for row in batch.rows] == ids
    assert ledger.claim(2, ROOMY) is None


def test_a_claimed_batch_is_in_flight_and_not_done_until_it_is_settled() -> None:
    ledger = make_ledger()
    put(ledger, 3)

    batch = ledger.claim(10, ROOMY)

    assert batch is not None
    assert ledger.counts() == LedgerCounts(accepted=3, in_flight=3)
    assert ledger.holds(batch)
    ledger.commit(batch, duplicates=1)
    assert ledger.counts() == LedgerCounts(accepted=3, committed=2, duplicates=1)
    assert not ledger.holds(batch)


def test_a_batch_is_settled_once() -> None:
    ledger = make_ledger()
    put(ledger)
    batch = ledger.claim(1, ROOMY)
    assert batch is not None
    ledger.commit(batch, 0)

    for again in (ledger.dead_letter, ledger.abandon):
        with pytest.raises(KeyError):
            again(batch)

    assert ledger.counts() == LedgerCounts(accepted=1, committed=1)


def test_a_batch_is_bounded_in_bytes_but_takes_at_least_one_row() -> None:
    ledger = make_ledger()
    put(ledger, 4)
    size = row_bytes(make_record())

    sizes = [len(batch.rows) for limit in (1, 2 * size, ROOMY) if (batch := ledger.claim(100, limit))]

    assert sizes == [1, 2, 1]


def test_a_place_sets_the_largest_row_aside_until_the_row_is_there() -> None:
    ledger = make_ledger(max_bytes=2 * MAX_ROW_BYTES)
    assert ledger.room.admit() and ledger.room.admit() and not ledger.room.admit()

    ledger.accept(row := make_record(), uuid7(), row_bytes(row), now=0.0)

    assert not ledger.room.admit(), "one row and one place leave less than the largest row"
    ledger.room.release()
    assert ledger.room.admit()


def test_the_largest_row_is_no_larger_than_what_its_place_set_aside() -> None:
    for character in ("x", "é", "漢", "\U0001f44b"):
        row = make_largest_record(character)
        assert sanitise(row) is row, "nothing is cut from it"
        assert row_bytes(row) <= MAX_ROW_BYTES


def test_pieces_of_a_batch_have_ids_of_their_own_and_all_of_its_rows() -> None:
    ledger = make_ledger()
    ids = put(ledger, 5)
    batch = ledger.claim(5, ROOMY)
    assert batch is not None

    left, right = ledger.divide(batch, [range(2), (), range(2, 5)])

    assert [row.id for row in left.rows + right.rows] == ids
    assert len({batch.id, left.id, right.id}) == 3
    assert ledger.counts().in_flight == 5
    assert not ledger.holds(batch)


def test_a_sink_that_counts_more_duplicates_than_rows_unbalances_nothing() -> None:
    for told in (-3, 99):
        ledger = make_ledger()
        put(ledger, 2)
        batch = ledger.claim(2, ROOMY)
        assert batch is not None
        ledger.commit(batch, told)
        assert ledger.counts().unaccounted == 0


def test_a_watermark_is_reached_when_every_row_up_to_it_is_settled() -> None:
    ledger = make_ledger()
    put(ledger, 4)
    first, second = ledger.claim(2, ROOMY), ledger.claim(1, ROOMY)
    assert first is not None and second is not None

    assert (ledger.is_settled(3), ledger.unsettled(3)) == (False, 3)
    ledger.commit(second, 0)
    assert (ledger.is_settled(3), ledger.unsettled(3)) == (False, 2)
    ledger.commit(first, 0)

    assert (ledger.is_settled(3), ledger.unsettled(3)) == (True, 0)
    assert (ledger.is_settled(4), ledger.unsettled(4)) == (False, 1)


class LedgerMachine(RuleBasedStateMachine):
    """Any sequence of moves, against a model that knows where each row is."""

    MAX_ROWS = 12
    MAX_BYTES = 4 * MAX_ROW_BYTES

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(uuid7(), Room(self.MAX_ROWS, self.MAX_BYTES), self.on_settled)
        self.where: dict[UUID, str] = {}
        self.sizes: dict[UUID, int] = {}
        self.batches: list[Batch] = []
        self.spooled: list[Batch] = []
        self.places = 0

    def on_settled(self, bucket: Bucket, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert self.where[entry.row.id] in ("queued", "in_flight"), "a row is settled twice"
            self.where[entry.row.id] = bucket

    @rule()
    def admit(self) -> None:
        had_room = self.ledger.room.left > 0
        assert self.ledger.room.admit() == had_room
        self.places += had_room

    @precondition(lambda self: self.places)
    @rule()
    def release(self) -> None:
        self.ledger.room.release()
        self.places -= 1

    @precondition(lambda self: self.places)
    @rule(row=st.sampled_from(ROWS))
    def accept(self, row: UsageRecord) -> None:
        row = self.ledger.accept(row, uuid7(), row_bytes(row), 0.0)
        assert row.seq == len(self.where) + 1
        self.where[row.id] = "queued"
        self.sizes[row.id] = row_bytes(row)
        self.places -= 1

    @rule(max_rows=st.integers(1, 5), max_bytes=st.integers(0, 3 * MAX_ROW_BYTES))
    def claim(self, max_rows: int, max_bytes: int) -> None:
        batch = self.ledger.claim(max_rows, max_bytes)
        assert (batch is None) == ("queued" not in self.where.values())
        if batch:
            assert 0 < len(batch.rows) <= max_rows
            self._flies(batch)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def divide(self, data: st.DataObject) -> None:
        batch = self._any_batch(data)
        middle = data.draw(st.integers(0, len(batch.rows)))
        for part in self.ledger.divide(batch, [range(middle), range(middle, len(batch.rows))]):
            self._flies(part)

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), duplicates=st.integers(-1, 6))
    def commit(self, data: st.DataObject, duplicates: int) -> None:
        self.ledger.commit(self._any_batch(data), duplicates)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def dead_letter(self, data: st.DataObject) -> None:
        self.ledger.dead_letter(self._any_batch(data))

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        batch = self._any_batch(data)
        assert [entry.row for entry in self.ledger.abandon(batch)] == list(batch.rows)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def spool(self, data: st.DataObject) -> None:
        self.spooled.append(batch := self._any_batch(data))
        self.ledger.spool(batch)

    @precondition(lambda self: self.spooled and self.ledger.room.left >= len(self.spooled[-1].rows))
    @rule()
    def fetch(self) -> None:
        batch = self.spooled.pop()
        self.ledger.fetch(batch, 0.0)
        self._flies(batch)

    @precondition(lambda self: any(self.ledger.home(each) for each in self.batches))
    @rule()
    def go_home(self) -> None:
        batch = next(each for each in self.batches if self.ledger.home(each))
        self.batches.remove(batch)
        self.spooled.append(batch)
        self.ledger.go_home(batch)

    @rule()
    def abandon_queue(self) -> None:
        queued = [row_id for row_id, place in self.where.items() if place == "queued"]
        assert [entry.row.id for entry in self.ledger.abandon_queue()] == queued

    @rule()
    def abandon_all(self) -> None:
        open_rows = {row_id for row_id, place in self.where.items() if place in ("queued", "in_flight")}
        assert {entry.row.id for entry in self.ledger.abandon_all()} == open_rows
        self.batches.clear()

    def _flies(self, batch: Batch) -> None:
        self.batches.append(batch)
        for row in batch.rows:
            self.where[row.id] = "in_flight"

    def _any_batch(self, data: st.DataObject) -> Batch:
        return self.batches.pop(data.draw(st.integers(0, len(self.batches) - 1)))

    @invariant()
    def the_counts_are_those_of_the_model(self) -> None:
        counts = self.ledger.counts()
        assert counts.unaccounted == 0
        told = Counter({name: count for name, count in asdict(counts).items() if name != "accepted"})
        assert counts.accepted == len(self.where)
        assert +told == +Counter(self.where.values())

    @invariant()
    def the_bounds_hold(self) -> None:
        assert self.ledger.room.rows <= self.MAX_ROWS
        assert self.ledger.room.bytes <= self.MAX_BYTES
        assert self.ledger.is_empty == (not self.places and not self._sizes_of("queued", "in_flight"))

    @invariant()
    def what_counts_against_the_bounds_is_what_is_there(self) -> None:
        sizes = self._sizes_of("queued", "in_flight")
        assert self.ledger.room.rows == len(sizes) + self.places
        assert self.ledger.room.bytes == sum(sizes) + self.places * MAX_ROW_BYTES
        assert self.ledger.queue_bytes == sum(self._sizes_of("queued"))

    def _sizes_of(self, *places: str) -> list[int]:
        return [self.sizes[row_id] for row_id, place in self.where.items() if place in places]


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40)
