"""Rows that are refused for good, through the core: they alone go, and the books balance.

The four regimes at the end are the accounting equations by which an exporter of telemetry is judged: nothing
fails, some attempts fail, some rows are refused, both.
"""

from __future__ import annotations

import math
from collections import Counter
from random import Random
from uuid import UUID

from hypothesis import given, note, seed
from hypothesis import strategies as st

from ...errors import SinkBatchRejected, SinkRetryable, SinkRowsRejected
from ...record import UsageRecord
from ...sink import Committed
from ..faults import Deliver, Fault, Write, fail, lose_ack
from ..records import make_record, records
from ..rig import SEED, Rig
from .base import fuzzed
from .core import ThroughTheCore

BAD = "bad"
"""The ``user_id`` of rows that a poisoned ``FaultySink`` refuses."""
MONEY = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens", "cost")
MAX_STATEMENTS = 64
ROWS = 200
"""Of a regime."""


class RefusalCases(ThroughTheCore):
    async def test_25_poison_single_row(self) -> None:
        """Refused by the sink itself, however it says so."""
        count = min(1000, self.batching.max_rows)
        async with self.through_core(max_rows=count) as rig:
            await rig.put_many(count // 2)
            bad = await rig.put_row(self.poison())
            await rig.put_many(count - count // 2 - 1)
            await self.flushed(rig)

            assert len(rig.sink.writes) <= MAX_STATEMENTS
            assert rig.box.ids() == [bad]
            assert rig.box.letters[0].code
            assert set(await rig.stored()) == set(rig.given) - {bad}
        self.check_counts(rig, committed=count - 1)

    async def test_26_poison_many(self) -> None:
        count = min(500, self.batching.max_rows)
        async with self.through_core(max_rows=count) as rig:
            rig.sink.poison(lambda row: row.user_id == BAD)
            for _ in range(50):
                await rig.put(user_id=BAD)
                await rig.put_many(count // 50 - 1)
            await self.flushed(rig)

            assert len(rig.sink.writes) <= 50 * _statements_per_bad_row(count)
            await self._check_moved_on(rig)

    async def test_26_all_poison(self) -> None:
        async with self.through_core(max_rows=64) as rig:
            for _ in range(64):
                await rig.put_row(self.poison())
            await self.flushed(rig)

            assert len(rig.sink.writes) <= 64 * _statements_per_bad_row(64)
            assert len(rig.box.letters) == 64
            await self._check_moved_on(rig)

    async def _check_moved_on(self, rig: Rig) -> None:
        """The bad rows are in the box, and rows that come after them are stored as ever."""
        refused = rig.box.ids()
        fresh = await rig.put_many(3)
        await self.flushed(rig)
        assert rig.box.ids() == refused
        stored = set(await rig.stored())
        assert stored == set(rig.given) - set(refused) and stored >= set(fresh)

    @seed(SEED)
    @fuzzed
    @given(st.lists(records(), min_size=1, max_size=10))
    async def test_27_llm_text_fuzz(self, given_rows: list[UsageRecord]) -> None:
        note(f"seed {SEED}")
        before = {row.id for row in await self.rows_in_sink()}

        async def new_rows() -> list[UsageRecord]:
            return [row for row in await self.rows_in_sink() if row.id not in before]

        async with self.through_core(read=new_rows) as rig:
            for row in given_rows:
                await rig.put_row(row)
            await self.flushed(rig)

        assert not rig.box.letters, "sanitised text is refused by no sink"
        for found in await rig.rows():
            self.check_money(found, rig.records[found.id])

    def check_money(self, found: UsageRecord, wanted: UsageRecord) -> None:
        """What is billed by is what was put, digit for digit where the sink declares that."""
        names = MONEY if self.capabilities.exact_decimal else MONEY[:-1]
        assert [getattr(found, name) for name in names] == [getattr(wanted, name) for name in names]

    async def test_29_token_reuse_forbidden(self) -> None:
        """The id of a batch is the identity of its rows: pieces of it have ids of their own."""
        async with self.through_core(max_rows=100) as rig:
            rig.sink.poison(lambda row: row.user_id == BAD)
            rig.sink.script(fail(ambiguous=True))
            for number in range(100):
                await rig.put(user_id=BAD if number in (20, 70) else None)
            await self.flushed(rig)

            contents: dict[UUID, set[tuple[UUID, ...]]] = {}
            for write in rig.sink.writes:
                contents.setdefault(write.batch_id, set()).add(write.row_ids)
            assert all(len(rows) == 1 for rows in contents.values()), "one id for two lists of rows"
            assert len(contents) == len(rig.sink.writes) - 1, "only the ambiguous one was sent again"
        self.check_counts(rig, committed=98)

    # --- four regimes

    async def test_accounting_when_everything_succeeds(self) -> None:
        async with self.through_core(max_rows=10) as rig:
            await rig.put_many(ROWS)
            await self.flushed(rig)

        _check_equations(rig, bad=set())
        assert len(rig.sink.writes) == ROWS // 10
        self.check_counts(rig, committed=ROWS)

    async def test_accounting_when_attempts_fail_at_random(self) -> None:
        async with self.through_core(max_rows=10) as rig:
            rig.sink.always = _failing_at_random(fail())
            await rig.put_many(ROWS)
            await self.flushed(rig)

        assert _check_equations(rig, bad=set())["retryable"] > 0
        self.check_counts(rig, committed=ROWS)

    async def test_accounting_when_rows_are_refused_at_random(self) -> None:
        async with self.through_core(max_rows=10) as rig:
            bad = await self._put_some_bad(rig)
            await self.flushed(rig)

        assert _check_equations(rig, bad)["refused"] >= len(bad)
        self.check_counts(rig, committed=ROWS - len(bad))

    async def test_accounting_when_everything_happens_at_random(self) -> None:
        async with self.through_core(max_rows=10) as rig:
            rig.sink.always = _failing_at_random(fail(), fail(ambiguous=True), lose_ack())
            bad = await self._put_some_bad(rig)
            await self.flushed(rig)

        rows = _check_equations(rig, bad)
        assert rows["refused"] >= len(bad) and rows["retryable"] > 0
        counts = rig.writer.stats().counts
        assert counts.committed + counts.duplicates == ROWS - len(bad)

    async def _put_some_bad(self, rig: Rig) -> set[UUID]:
        rng = Random(SEED)
        bad: set[UUID] = set()
        for _ in range(ROWS):
            is_bad = rng.random() < 0.05
            row_id = await rig.put_row(self.poison() if is_bad else make_record())
            bad |= {row_id} if is_bad else set()
        return bad


def _check_equations(rig: Rig, bad: set[UUID]) -> Counter[str]:
    """Every good row was confirmed once and no bad one ever, every bad row is in the box once, and

    rows tried = rows confirmed + rows in attempts to be repeated + rows in attempts refused
    """
    rows: Counter[str] = Counter()
    confirmed: Counter[UUID] = Counter()
    for write in rig.sink.writes:
        confirmed.update(_confirmed(write))
        rows["tried"] += len(write.row_ids)
        rows[_kind(write)] += len(write.row_ids)
    assert confirmed == Counter(set(rig.given) - bad)
    assert sorted(rig.box.ids()) == sorted(bad)
    assert rows["tried"] == rows["confirmed"] + rows["retryable"] + rows["refused"]
    if not bad:
        assert rows["tried"] == len(rig.given) + rows["retryable"]
    return rows


def _confirmed(write: Write) -> tuple[UUID, ...]:
    """The rows that the sink called stored."""
    if isinstance(write.outcome, Committed):
        return write.row_ids
    if isinstance(write.outcome, SinkRowsRejected) and write.outcome.stored:
        return tuple(row for n, row in enumerate(write.row_ids) if n not in write.outcome.rejected)
    return ()


def _kind(write: Write) -> str:
    if isinstance(write.outcome, Committed):
        return "confirmed"
    if isinstance(write.outcome, SinkBatchRejected | SinkRowsRejected):
        return "refused"
    assert isinstance(write.outcome, SinkRetryable), write.outcome
    return "retryable"


def _failing_at_random(*faults: Fault) -> Fault:
    """A fault: every third attempt or so meets one of ``faults``, but never three in a row: an open circuit
    breaker is another case, and would cost seconds."""
    rng = Random(SEED)
    streak = 0

    async def fault(deliver: Deliver) -> Committed:
        nonlocal streak
        streak = streak + 1 if streak < 2 and rng.random() < 0.35 else 0
        return await (rng.choice(faults)(deliver) if streak else deliver())

    return fault


def _statements_per_bad_row(batch_rows: int) -> float:
    """At most so many statements does it cost to find one bad row among ``batch_rows``."""
    return 2 * (math.log2(batch_rows) + 1)
