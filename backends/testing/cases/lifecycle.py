"""Opening, closing, ending: any number of times, in any number of processes, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from uuid_utils.compat import uuid7

from ...record import Boot
from ...sink import Committed, PooledSink
from ..records import MOMENT, make_batch
from .base import TYPED_ERRORS, SinkCases, bounded, settled


class LifecycleCases(SinkCases):
    async def test_rows_outlive_the_sink(self) -> None:
        first, second = make_batch(3), make_batch(3)

        async with self.open() as sink:
            await bounded(sink.write(first))
        async with self.open() as sink:
            await bounded(sink.write(second))

        await self.check_stored(first.rows, second.rows)

    async def test_a_sink_that_nobody_used_closes(self) -> None:
        async with self.open():
            pass

        gc.collect()

    async def test_ping_succeeds_on_a_new_database(self) -> None:
        async with self.open() as sink:
            for _ in range(3):
                await bounded(sink.ping())

        await self.check_stored()

    async def test_several_processes_may_start_on_a_new_database_at_once(self) -> None:
        batches = [make_batch(5) for _ in range(4)]

        async with AsyncExitStack() as stack:
            sinks = [await stack.enter_async_context(self.open()) for _ in batches]
            pairs = zip(sinks, batches, strict=True)
            answers = await asyncio.gather(*(bounded(sink.write(batch)) for sink, batch in pairs))

        assert answers == [Committed(5, 0)] * 4
        await self.check_stored(*(batch.rows for batch in batches))

    async def test_the_schema_may_be_made_again(self) -> None:
        batch = make_batch(2)

        async with self.open() as sink:
            await bounded(sink.write(batch))
        for _ in range(3):
            async with self.open() as sink:
                await bounded(sink.ping())

        await self.check_stored(batch.rows)

    async def test_connections_are_counted_where_the_sink_counts_them(self) -> None:
        async with self.open() as sink:
            if not isinstance(sink, PooledSink):
                pytest.skip(f"not offered: {type(sink).__name__} has no pool")
            seen = 0
            for _ in range(5):
                writing = asyncio.ensure_future(bounded(sink.write(make_batch(3))))
                while not writing.done():
                    seen = max(seen, sink.pool()["in_use"])
                    await asyncio.sleep(0)
                await writing

            assert seen >= 1
            assert sink.pool()["in_use"] == 0
            assert sink.pool().keys() <= {"in_use", "idle"}
            assert sink.pool().get("idle", 1) >= 1

    async def test_abort_may_be_repeated_on_an_idle_sink(self) -> None:
        async with self.open() as sink:
            sink.abort()
        async with self.open() as sink:
            await bounded(sink.ping())
            sink.abort()
            sink.abort()

        gc.collect()

    async def test_abort_ends_a_write_under_way(self) -> None:
        aborted = make_batch(200)

        async with self.open() as sink:
            await bounded(sink.ping())
            task = asyncio.ensure_future(sink.write(aborted))
            await asyncio.sleep(0)
            sink.abort()
            await settled(task)
            error = task.exception()
        assert error is None or isinstance(error, TYPED_ERRORS)
        async with self.open() as sink:
            await bounded(sink.write(aborted))

        await self.check_stored(aborted.rows)

    async def test_a_boot_is_stored_with_its_start(self) -> None:
        boot = Boot(id=uuid7(), started_at=MOMENT)

        async with self.open() as sink:
            await bounded(sink.record_boot(boot))
            await bounded(sink.record_boot(boot))

        await self._check_boots(boot)

    async def test_a_boot_that_closed_has_its_last_number(self) -> None:
        started, closed = _boot()

        async with self.open() as sink:
            for boot in (started, closed, closed):
                await bounded(sink.record_boot(boot))

        await self._check_boots(closed)

    async def test_a_start_that_arrives_late_undoes_no_close(self) -> None:
        started, closed = _boot()

        async with self.open() as sink:
            for boot in (closed, started):
                await bounded(sink.record_boot(boot))

        await self._check_boots(closed)

    async def test_a_boot_that_accepted_nothing_has_zero_for_its_last_number(self) -> None:
        _, closed = _boot(last_seq=0)

        async with self.open() as sink:
            await bounded(sink.record_boot(closed))

        await self._check_boots(closed)

    async def test_boots_lie_side_by_side(self) -> None:
        boots = [boot for n in range(3) for boot in _boot(last_seq=n)]

        async with self.open() as sink:
            for boot in boots:
                await bounded(sink.record_boot(boot))

        await self._check_boots(*boots[1::2])

    async def _check_boots(self, *expected: Boot) -> None:
        found = {boot.id: boot for boot in await self.boots_in_sink()}
        assert found.keys() == {boot.id for boot in expected}
        for boot in expected:
            assert found[boot.id].last_seq == boot.last_seq
            assert (found[boot.id].closed_at is None) == (boot.closed_at is None)
            assert abs(found[boot.id].started_at - boot.started_at) < timedelta(milliseconds=1)


def _boot(last_seq: int = 7) -> tuple[Boot, Boot]:
    """A boot at its start and at its close."""
    started = Boot(id=uuid7(), started_at=MOMENT)
    later = MOMENT + timedelta(hours=1)
    return started, Boot(id=started.id, started_at=MOMENT, closed_at=later, last_seq=last_seq)
