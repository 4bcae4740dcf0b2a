"""The sink behind the real batching core: no row is lost or doubled, whatever happens between the two.

The numbers are those of the core's own list of cases. Real time and real I/O, so every wait is short; the
same cases run on a virtual clock, with many more variants, in the core's own tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

from ...sink import Committed
from ..faults import Deliver, Gate, fail, fatal, lose_ack
from ..records import make_record
from ..rig import SEED, Hasty, ReadRows, Rig, running, until
from .base import PATIENCE_S, SinkCases, bounded

LONG_S = 3600.0
MOMENTS = 40
"""Moments, spread over the time that a write takes, at which one is cancelled."""


class ThroughTheCore(SinkCases):
    """What the cases of this module and of ``refusals`` stand on."""

    @asynccontextmanager
    async def through_core(self, read: ReadRows | None = None, **options: Any) -> AsyncIterator[Rig]:
        """A running writer before the sink under test, with the limits that this sink declares, and without
        linger. Leaving stops it; then every row is where it should be, once, with every field as it was."""
        limits = {**self.sink_cls.batching_defaults, "linger_s": 0, **options}
        async with (
            self.open() as sink,
            running(sink, read=read or self.rows_in_sink, rng=Hasty(SEED), **limits) as rig,
        ):
            yield rig
        for row in await rig.rows():
            self.check_equal(row, rig.expected(row))

    async def flushed(self, rig: Rig) -> None:
        """Every row that was put so far has gone where it goes."""
        report = await bounded(rig.writer.flush(PATIENCE_S))
        assert report.outcome == "ok", report
        rig.check()

    def check_counts(self, rig: Rig, *, committed: int, duplicates: int = 0) -> None:
        """The ledger after the end. Where duplicates are not seen at once, the two counts are one."""
        counts = rig.writer.stats().counts
        if self.capabilities.dedup == "immediate":
            assert (counts.committed, counts.duplicates) == (committed, duplicates)
        else:
            assert counts.committed + counts.duplicates == committed + duplicates


class CoreCases(ThroughTheCore):
    async def test_01_queued_rows_flushed_on_stop(self) -> None:
        async with self.through_core(linger_s=LONG_S) as rig:
            await rig.put_many(250)

            report = await bounded(rig.writer.stop())

            assert report.outcome == "drained" and report.is_clean
            assert set(await rig.stored()) == set(rig.given)
        self.check_counts(rig, committed=250)

    async def test_rows_in_places_that_were_taken_without_waiting_are_stored_beside_the_others(self) -> None:
        async with self.through_core() as rig:
            for _ in range(5):
                place, one_more = await rig.place(), rig.writer.reserve_now()
                assert one_more is not None
                rig.use(one_more, status="absorbed")
                rig.use(place)

            assert (await bounded(rig.writer.stop())).outcome == "drained"
            assert set(await rig.stored()) == set(rig.given)
        self.check_counts(rig, committed=10)

    async def test_02_in_flight_batch_survives_stop(self) -> None:
        async with self.through_core() as rig:
            gate = Gate()
            rig.sink.script(gate)
            await rig.put_many(7)
            await bounded(gate.entered.wait())
            await rig.put_many(5)

            stopping = asyncio.ensure_future(rig.writer.stop())
            await asyncio.sleep(0)
            assert rig.sink.in_progress == 1 and not stopping.done()
            gate.opened.set()
            report = await bounded(stopping)

            assert report.outcome == "drained" and report.is_clean
            assert set(await rig.stored()) == set(rig.given)
        self.check_counts(rig, committed=12)

    async def test_02_a_batch_whose_answer_is_on_its_way_survives_stop(self) -> None:
        async with self.through_core() as rig:
            gate = Gate(after_commit=True)
            rig.sink.script(gate)
            await rig.put_many(7)
            await bounded(gate.entered.wait())

            stopping = asyncio.ensure_future(rig.writer.stop())
            await asyncio.sleep(0)
            gate.opened.set()

            assert (await bounded(stopping)).outcome == "drained"
        self.check_counts(rig, committed=7)

    async def test_10_cancel_at_every_step_flush(self) -> None:
        async with self.through_core(flush_concurrency=1) as rig:
            await rig.put_many(20)
            await self.flushed(rig)  # the first write makes the schema, and would measure too long
            began = asyncio.get_running_loop().time()
            await rig.put_many(20)
            await self.flushed(rig)
            duration = asyncio.get_running_loop().time() - began

            rig.sink.always = _CancelsFirstAttempts(rig, duration)
            for _ in range(MOMENTS):
                await rig.put_many(20)
                await self.flushed(rig)

            assert len(rig.sink.writes) > MOMENTS + 2, "no write was cancelled"
            assert set(await rig.stored()) == set(rig.given)

    async def test_17_start_with_sink_down(self) -> None:
        self.need_fault("down")
        async with AsyncExitStack() as outage:
            await outage.enter_async_context(self.fault("down"))
            async with self.through_core() as rig:
                await rig.put_many(5)
                await bounded(until(lambda: any(write.outcome for write in rig.sink.writes)))
                assert rig.writer.stats().state == "running"
                assert rig.writer.stats().counts.committed == 0

                await outage.aclose()
                await self.flushed(rig)

                assert set(await rig.stored()) == set(rig.given)

    async def test_18_fails_n_then_recovers(self) -> None:
        async with self.through_core() as rig:
            rig.sink.script(fail(), times=3)
            await rig.put_many(6)
            await self.flushed(rig)

            assert len(rig.sink.writes) == 4
            assert len(set(rig.sink.batch_ids())) == 1, "the same batch, under the same id"
        self.check_counts(rig, committed=6)

    async def test_19_ack_lost_after_commit(self) -> None:
        async with self.through_core() as rig:
            rig.sink.script(lose_ack(), lose_ack())
            await rig.put_many(6)
            await self.flushed(rig)

            assert len(set(rig.sink.batch_ids())) == 1
        self.check_counts(rig, committed=0, duplicates=6)

    async def test_31_duplicate_id_submitted_twice(self) -> None:
        async with self.through_core() as rig:
            row = make_record()
            for _ in range(2):
                await rig.writer.put(row)
                rig.given.append(row.id)
                await self.flushed(rig)
            rig.records[row.id] = row

            assert set(await rig.stored()) == {row.id}
        self.check_counts(rig, committed=1, duplicates=1)

    async def test_32_fatal_auth_or_schema(self) -> None:
        async with self.through_core() as rig:
            rig.sink.always = fatal("changed password")
            await rig.put_many(3)
            await bounded(until(lambda: "sink_refuses" in rig.writer.stats().degraded))
            assert rig.writer.stats().counts.dead_lettered == 0, "a password is no reason to bury rows"

            rig.sink.heal()
            report = await bounded(rig.writer.stop())

            assert report.outcome == "drained"
        self.check_counts(rig, committed=3)

    async def test_the_boot_of_a_run_has_its_last_number_in_the_sink(self) -> None:
        async with self.through_core() as rig:
            await rig.put_many(4)
            await self.flushed(rig)  # by then the start is recorded, and the close has to change it

        (boot,) = await self.boots_in_sink()
        assert (boot.id, boot.last_seq) == (rig.writer.boot_id, 4)
        assert boot.closed_at is not None


class _CancelsFirstAttempts:
    """A fault: the first attempt of each batch is cancelled, each batch's a little later than that of the
    one before; the second attempt goes through."""

    def __init__(self, rig: Rig, duration: float) -> None:
        self._rig = rig
        self._delays = iter([duration * moment / MOMENTS for moment in range(MOMENTS)])
        self._seen: set[UUID] = set()

    async def __call__(self, deliver: Deliver) -> Committed:
        batch_id = self._rig.sink.writes[-1].batch_id
        delay = None if batch_id in self._seen else next(self._delays, None)
        self._seen.add(batch_id)
        if delay is None:
            return await deliver()
        task = asyncio.current_task()
        assert task is not None
        if not delay:
            task.cancel()
        timer = asyncio.get_running_loop().call_later(delay, task.cancel)
        try:
            return await deliver()
        finally:
            timer.cancel()
