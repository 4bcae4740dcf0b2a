"""Sent twice is stored once: the promise that makes every retry safe."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from ...errors import SinkRetryable
from ...record import Batch, UsageRecord
from ...sink import Committed, LogSink
from ..faults import FaultySink, lose_ack
from ..records import make_batch, make_record, make_records
from .base import SinkCases, bounded, read_all, reader_of


class IdempotenceCases(SinkCases):
    async def test_the_same_batch_twice_is_stored_once(self) -> None:
        batch = make_batch(5)

        async with self.open() as sink:
            first = await bounded(sink.write(batch))
            second = await bounded(sink.write(batch))

            assert first == Committed(5, 0)
            self._check_counts(second, new=0, duplicates=5)
            await self.check_once(sink, batch.rows)

    async def test_the_same_rows_in_a_new_batch_are_stored_once(self) -> None:
        batch = make_batch(5)
        again = Batch.of(batch.rows[::-1])

        async with self.open() as sink:
            await bounded(sink.write(batch))
            answer = await bounded(sink.write(again))

            self._check_counts(answer, new=0, duplicates=5)
            await self.check_once(sink, batch.rows)

    async def test_an_overlapping_batch_adds_what_is_new(self) -> None:
        rows = make_records(10)

        async with self.open() as sink:
            await bounded(sink.write(Batch.of(rows[:6])))
            answer = await bounded(sink.write(Batch.of(rows[3:])))

            self._check_counts(answer, new=4, duplicates=3)
            await self.check_once(sink, rows)

    async def test_a_row_that_is_twice_in_one_batch_is_stored_once(self) -> None:
        row, other = make_record(), make_record()

        async with self.open() as sink:
            answer = await bounded(sink.write(Batch.of((row, other, row))))

            self._check_counts(answer, new=2, duplicates=1)
            await self.check_once(sink, (row, other))

    async def test_known_rows_stay_known_after_the_sink_was_closed(self) -> None:
        batch = make_batch(4)
        async with self.open() as sink:
            await bounded(sink.write(batch))

        async with self.open() as sink:
            answer = await bounded(sink.write(batch))

            self._check_counts(answer, new=0, duplicates=4)
            await self.check_once(sink, batch.rows)

    async def test_an_acknowledgement_that_is_lost_duplicates_nothing(self) -> None:
        batch = make_batch(4)

        async with self.open() as inner:
            sink = FaultySink(inner)
            sink.script(lose_ack())
            with pytest.raises(SinkRetryable):
                await bounded(sink.write(batch))
            answer = await bounded(sink.write(batch))

            self._check_counts(answer, new=0, duplicates=4)
            await self.check_once(inner, batch.rows)

    async def test_as_many_writes_at_once_as_declared(self) -> None:
        width = self.batching.flush_concurrency
        batches = [make_batch(20) for _ in range(width)]

        async with self.open() as sink:
            answers = await asyncio.gather(*(bounded(sink.write(batch)) for batch in batches))

            assert answers == [Committed(20, 0)] * width
            await self.check_once(sink, *(batch.rows for batch in batches))

    async def test_several_processes_may_write_the_same_batch_at_once(self) -> None:
        batch = make_batch(50)

        async with AsyncExitStack() as stack:
            sinks = [await stack.enter_async_context(self.open()) for _ in range(4)]
            answers = await asyncio.gather(*(bounded(sink.write(batch)) for sink in sinks))

            assert sum(answer.new + answer.duplicates for answer in answers) == 200
            if self.capabilities.dedup == "immediate":
                assert sum(answer.new for answer in answers) == 50
            await self.check_once(sinks[0], batch.rows)

    async def check_once(self, sink: LogSink, *expected: tuple[UsageRecord, ...]) -> None:
        """Each row once, in the table, or, with ``dedup: eventual``, at least as the read side shows it."""
        await self.check_stored(*expected)
        if reader := reader_of(sink):
            ids = [row.id for row in await read_all(reader)]
            assert sorted(ids) == sorted(row.id for rows in expected for row in rows)

    def _check_counts(self, answer: Committed, *, new: int, duplicates: int) -> None:
        """Exact where duplicates are seen at once; where they are not, every row is still spoken for."""
        if self.capabilities.dedup == "immediate":
            assert answer == Committed(new, duplicates)
        else:
            assert answer.new + answer.duplicates == new + duplicates
