"""What is written is what is there: every field, every size of batch, every text."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta, timezone
from decimal import Decimal

from hypothesis import given, seed
from hypothesis import strategies as st
from msgspec import structs

from ...record import TEXT_LIMITS, Batch, UsageRecord
from ...sanitise import sanitise
from ...sink import Committed
from ..records import (
    MOMENT,
    make_bare_record,
    make_batch,
    make_full_record,
    make_largest_record,
    make_record,
    make_records,
    nasty_texts,
    records,
)
from ..rig import SEED
from .base import PATIENCE_S, SinkCases, bounded, fuzzed

_TEXT_COLUMNS = tuple(
    name for name in TEXT_LIMITS if name not in ("status", "end_reason", "usage_source", "tags")
)


class RoundTripCases(SinkCases):
    async def test_every_field_comes_back(self) -> None:
        await self._write_and_check(make_full_record())

    async def test_what_is_unknown_stays_unknown(self) -> None:
        await self._write_and_check(make_bare_record())

    async def test_zero_is_not_unknown(self) -> None:
        zeros = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens"), 0)

        await self._write_and_check(make_full_record(**zeros, cost=Decimal(0), latency_ms=0.0, ttft_ms=0.0))

    async def test_an_empty_text_is_not_unknown(self) -> None:
        await self._write_and_check(make_full_record(user_id="", model="", error_message=""))

    async def test_cost_keeps_its_digits_as_declared(self) -> None:
        cost = Decimal("123456789.123456789")

        stored = await self._write_and_check(make_record(cost=cost))

        assert (stored.cost == cost) == self.capabilities.exact_decimal

    async def test_time_keeps_its_microseconds_as_declared(self) -> None:
        stored = await self._write_and_check(make_record(timestamp=MOMENT))

        assert (stored.timestamp == MOMENT) == self.capabilities.microsecond_time
        assert abs(stored.timestamp - MOMENT) < timedelta(milliseconds=1)

    async def test_a_time_of_another_zone_is_the_same_moment(self) -> None:
        elsewhere = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=45)))

        await self._write_and_check(make_record(timestamp=elsewhere))

    async def test_an_empty_batch_stores_nothing(self) -> None:
        async with self.open() as sink:
            answer = await bounded(sink.write(Batch.of(())))

        assert answer == Committed(0, 0)
        await self.check_stored()

    async def test_a_batch_of_the_largest_number_of_rows(self) -> None:
        batch = make_batch(self.batching.max_rows)

        async with self.open() as sink:
            answer = await bounded(sink.write(batch))

        assert answer == Committed(self.batching.max_rows, 0)
        await self.check_stored(batch.rows)

    async def test_rows_of_the_largest_size(self) -> None:
        await self._write_and_check(*(make_largest_record(character) for character in ("x", "é", "漢", "👋")))

    async def test_several_batches_lie_side_by_side(self) -> None:
        batches = [make_batch(3) for _ in range(4)]

        async with self.open() as sink:
            for batch in batches:
                assert await bounded(sink.write(batch)) == Committed(3, 0)

        await self.check_stored(*(batch.rows for batch in batches))

    async def test_a_write_that_returned_is_in_the_database(self) -> None:
        batches = [make_batch(3) for _ in range(3)]

        async with asyncio.timeout(PATIENCE_S), self.open() as sink:
            for count, batch in enumerate(batches, 1):
                await sink.write(batch)
                stored = await self.rows_in_sink()
                assert {row.id for row in stored} >= {row.id for row in batch.rows}
                assert len({row.id for row in stored}) == 3 * count
            sink.abort()  # an end without ceremony takes nothing back

        await self.check_stored(*(batch.rows for batch in batches))

    async def test_nasty_text_comes_back_as_it_was_sanitised(self) -> None:
        rows = [make_record(**dict.fromkeys(_TEXT_COLUMNS, text), tags=text) for text in nasty_texts]

        await self._write_and_check(*map(sanitise, rows))

    @seed(SEED)
    @fuzzed
    @given(st.lists(records().map(sanitise), min_size=1, max_size=20))
    async def test_llm_text_fuzz(self, rows: list[UsageRecord]) -> None:
        ids = {row.id for row in rows}
        async with self.open() as sink:
            await bounded(sink.write(Batch.of(tuple(rows))))

        stored = {row.id: row for row in await self.rows_in_sink() if row.id in ids}

        assert set(stored) == ids
        for row in rows:
            self.check_equal(stored[row.id], row)

    async def test_the_batch_is_neither_changed_nor_kept(self) -> None:
        rows = tuple(make_records(3))
        batch = Batch.of(rows)
        copies = tuple(structs.replace(row) for row in rows)
        known, holders = batch.id, (sys.getrefcount(batch), sys.getrefcount(rows))

        async with self.open() as sink:
            await bounded(sink.write(batch))
            await bounded(sink.ping())  # whoever carried the batch to the database is at something else now

            assert (sys.getrefcount(batch), sys.getrefcount(rows)) == holders
        assert (batch.id, batch.rows) == (known, copies)

    async def _write_and_check(self, *rows: UsageRecord) -> UsageRecord:
        async with self.open() as sink:
            answer = await bounded(sink.write(Batch.of(rows)))

        assert answer == Committed(len(rows), 0)
        await self.check_stored(rows)
        return (await self.rows_in_sink())[0]
