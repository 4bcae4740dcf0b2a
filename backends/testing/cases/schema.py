"""The schema: made by whoever comes first, made once, and never at the cost of a row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest
from uuid_utils.compat import uuid7

from ...errors import SinkFatal
from ...record import Batch, Boot
from ...sink import Committed, LogSink, UsageReader
from ...usage_query import SummaryQuery, UsageQuery
from ..records import MOMENT, make_batch, make_full_record
from .base import SinkCases, bounded, outcome_of


class SchemaCases(SinkCases):
    async def test_migrating_an_empty_database_makes_it_ready(self) -> None:
        batch = make_batch(3)

        async with self.open() as sink:
            await bounded(sink.migrate())
            assert await bounded(sink.write(batch)) == Committed(3, 0)

        await self.check_stored(batch.rows)

    async def test_migrating_again_changes_no_row(self) -> None:
        row, boot = make_full_record(), Boot(id=uuid7(), started_at=MOMENT, closed_at=MOMENT, last_seq=1)
        batch = make_batch(3)

        async with self.open() as sink:
            await bounded(sink.write(Batch.of((row,))))
            await bounded(sink.write(batch))
            await bounded(sink.record_boot(boot))
            for _ in range(3):
                await bounded(sink.migrate())
        async with self.open() as sink:
            await bounded(sink.migrate())

        await self.check_stored((row,), batch.rows)
        assert [each.last_seq for each in await self.boots_in_sink()] == [1]

    async def test_several_processes_may_migrate_a_new_database_at_once(self) -> None:
        batches = [make_batch(2) for _ in range(3)]

        async with AsyncExitStack() as stack:
            sinks = [await stack.enter_async_context(self.open()) for _ in batches]
            migrating = [sink.migrate() for sink in sinks * 2]
            writing = [sink.write(batch) for sink, batch in zip(sinks, batches, strict=True)]
            await asyncio.gather(*map(bounded, [*migrating, *writing]))

        await self.check_stored(*(batch.rows for batch in batches))

    async def test_told_not_to_migrate_it_says_what_to_run(self) -> None:
        boot = Boot(id=uuid7(), started_at=MOMENT)

        async with self._open_without_migrating() as sink:
            for call in (sink.write(make_batch(2)), sink.ping(), sink.record_boot(boot), *_reads(sink)):
                error = await outcome_of(call)
                assert isinstance(error, SinkFatal), f"{call} gave {error!r}"
                assert error.code == "schema_missing"
                assert "tallygate migrate" in error.message

    async def test_told_not_to_migrate_it_works_once_somebody_did(self) -> None:
        batch, later = make_batch(2), make_batch(2)

        async with self._open_without_migrating() as sink:
            assert isinstance(await outcome_of(sink.write(batch)), SinkFatal)
            await bounded(self._migrate_elsewhere())
            assert await bounded(sink.write(batch)) == Committed(2, 0)
            await bounded(sink.migrate())
            assert await bounded(sink.write(later)) == Committed(2, 0)

        await self.check_stored(batch.rows, later.rows)

    async def _migrate_elsewhere(self) -> None:
        async with self._open_without_migrating() as other:
            await other.migrate()

    def _open_without_migrating(self) -> AbstractAsyncContextManager[LogSink]:
        options = self.make_options()
        if "migrate" not in type(options).model_fields:
            pytest.skip(f"not offered: {type(options).__name__} has no option migrate")
        return self.sink_cls.open(options.model_copy(update={"migrate": False}))


def _reads(sink: LogSink) -> tuple[Awaitable[object], ...]:
    if not isinstance(sink, UsageReader):
        return ()
    return sink.read_usage(UsageQuery()), sink.summarise_usage(SummaryQuery())
