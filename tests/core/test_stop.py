"""Cases 1 to 8: every way in which a stop can go."""

from __future__ import annotations

import asyncio
import logging

import pytest

from backends import SingleLogWriter
from backends.errors import SinkRetryable
from backends.sink import Committed
from backends.testing import FaultySink, Gate, fail, fatal, virtual_clock
from backends.testing.rig import LetterBox, build_writer, running, until

STOP_BOUND_S = 11.0
"""The stop deadline and the cancel grace together."""


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual_clock
async def test_01_queued_rows_flushed_on_stop() -> None:
    async with running(linger_s=3600, max_rows=100) as rig:
        await rig.put_many(50)
        before = now()

        report = await rig.writer.stop()

        assert report.is_clean and report.outcome == "drained"
        assert sorted(await rig.stored()) == sorted(rig.given)
        assert now() == before, "an idle writer does not wait for its linger"


@virtual_clock
async def test_02_in_flight_batch_survives_stop() -> None:
    async with running(linger_s=0, max_rows=100) as rig:
        gate = Gate()
        rig.sink.script(gate)
        await rig.put_many(7)
        await gate.entered.wait()
        await rig.put_many(5)

        stopping = asyncio.ensure_future(rig.writer.stop())
        await asyncio.wait({stopping}, timeout=5)
        assert not stopping.done(), "the stop waits for the batch that is under way"
        gate.opened.set()
        report = await stopping

        assert report.stats.counts.committed == 12
        assert report.outcome == "drained"


@virtual_clock
async def test_03_stop_deadline_then_cancel(caplog: pytest.LogCaptureFixture) -> None:
    async with running(linger_s=0, max_rows=10, flush_concurrency=1) as rig:
        rig.sink.always = rig.sink.hang(heeds_cancel=True)
        ids = await rig.put_many(25)
        before = now()

        with caplog.at_level(logging.ERROR, logger="backends.writer"):
            report = await rig.writer.stop(10)

        assert now() - before <= STOP_BOUND_S
        assert report.outcome == "deadline" and not report.is_clean
        assert report.stats.counts.abandoned == 25
        named = [name for record in caplog.records for name in getattr(record, "ids", [])]
        assert sorted(named) == sorted(map(str, ids)), "every abandoned row is named, once"


@virtual_clock
async def test_04_stop_when_never_started() -> None:
    writer = build_writer(FaultySink(), LetterBox())

    first, second = await writer.stop(), await writer.stop()

    assert first == second
    assert first.is_clean and first.stats.counts.accepted == 0
    assert writer.stats().state == "closed"


@virtual_clock
async def test_05_stop_deadline_with_uncancellable_flush() -> None:
    async with running(linger_s=0, max_rows=10) as rig:
        rig.sink.always = rig.sink.hang()
        await rig.put_many(3)
        before = now()

        report = await rig.writer.stop(10)

        assert rig.sink.aborts == 1
        assert now() - before <= STOP_BOUND_S
        assert report.stats.counts.abandoned == 3


@virtual_clock
async def test_05_stop_returns_although_the_flush_heeds_neither_cancel_nor_abort() -> None:
    async with running(linger_s=0) as rig:
        deaf = Gate()
        rig.sink.always = lambda deliver: never_ending(deaf)
        await rig.put()
        before = now()

        report = await rig.writer.stop(10)

        assert now() - before <= STOP_BOUND_S
        assert report.stats.counts.abandoned == 1
        deaf.opened.set()


@virtual_clock
async def test_06_stop_twice_concurrently() -> None:
    async with running(linger_s=0) as rig:
        gate = Gate()
        rig.sink.script(gate)
        await rig.put()
        await gate.entered.wait()

        stops = [asyncio.ensure_future(rig.writer.stop()) for _ in range(3)]
        await asyncio.sleep(1)
        gate.opened.set()
        reports = await asyncio.gather(*stops)

        assert reports[0] == reports[1] == reports[2]
        assert len(rig.sink.writes) == 1


@virtual_clock
async def test_06_a_later_stop_may_bring_the_deadline_forward() -> None:
    async with running(linger_s=0) as rig:
        rig.sink.always = rig.sink.hang(heeds_cancel=True)
        await rig.put()
        patient = asyncio.ensure_future(rig.writer.stop(10))
        await asyncio.sleep(1)
        before = now()

        report = await rig.writer.stop(0)

        assert now() - before <= 1.0
        assert await patient == report
        assert report.stats.counts.abandoned == 1


@virtual_clock
async def test_07_stop_caller_cancelled() -> None:
    async with running(linger_s=0) as rig:
        gate = Gate()
        rig.sink.script(gate)
        await rig.put()
        await gate.entered.wait()
        caller = asyncio.ensure_future(rig.writer.stop())
        await asyncio.sleep(1)

        caller.cancel()
        await asyncio.wait({caller})
        gate.opened.set()
        report = await rig.writer.stop()

        assert caller.cancelled()
        assert report.outcome == "drained" and report.stats.counts.committed == 1


@virtual_clock
async def test_08_drain_task_cancelled() -> None:
    async with running(linger_s=0) as rig:
        rig.sink.always = rig.sink.hang(heeds_cancel=True)
        await rig.put_many(4)
        stopping = asyncio.ensure_future(rig.writer.stop())
        await asyncio.sleep(1)

        for task in asyncio.all_tasks() - {asyncio.current_task(), stopping}:
            task.cancel()
        report = await stopping

        assert report.outcome == "aborted"
        assert report.stats.counts.abandoned == 4, "what a dying loop leaves behind is counted at once"


@virtual_clock
async def test_the_stop_with_an_open_breaker_costs_one_probe_and_not_the_deadline() -> None:
    async with running(linger_s=0, max_rows=5) as rig:
        rig.sink.always = fail()
        await rig.put_many(8)
        await until(lambda: rig.writer.stats().breaker == "open")
        attempts, before = len(rig.sink.writes), now()

        report = await rig.writer.stop(10)

        assert len(rig.sink.writes) == attempts + 1
        assert now() == before
        assert report.outcome == "sink_down" and report.stats.counts.abandoned == 8


@virtual_clock
async def test_the_probe_of_a_stop_delivers_everything_when_the_sink_is_back() -> None:
    async with running(linger_s=0, max_rows=5) as rig:
        rig.sink.always = fail()
        await rig.put_many(23)
        await until(lambda: rig.writer.stats().breaker == "open")
        rig.sink.heal()

        report = await rig.writer.stop(10)

        assert report.outcome == "drained" and report.stats.counts.committed == 23


@virtual_clock
async def test_a_sink_that_fails_while_draining_is_tried_again_until_the_deadline_and_not_hammered() -> None:
    async with running(linger_s=3600) as rig:
        rig.sink.always = fail()
        await rig.put_many(3)

        report = await rig.writer.stop(10)

        assert report.outcome == "deadline" and report.stats.counts.abandoned == 3
        assert 10 <= len(rig.sink.writes) <= 60, "back-off up to one second, for ten seconds"


@virtual_clock
async def test_the_stop_waits_for_the_rows_of_calls_that_hold_a_place() -> None:
    async with running(linger_s=0) as rig:
        place = await rig.place()
        stopping = asyncio.ensure_future(rig.writer.stop())
        await asyncio.wait({stopping}, timeout=2)
        assert not stopping.done()

        rig.use(place)

        assert (await stopping).stats.counts.committed == 1


@virtual_clock
async def test_the_stop_waits_in_peace_for_the_row_of_a_call_while_the_breaker_is_open() -> None:
    """Until that row comes there is nothing to probe with, and the collector must not spin."""
    async with running(kind=SingleLogWriter) as rig:
        held, lost = await rig.place(), await rig.place()
        rig.sink.script(fatal())
        rig.use(lost)
        await until(lambda: rig.writer.stats().counts.abandoned == 1)
        assert rig.writer.stats().breaker == "open"

        stopping = asyncio.ensure_future(rig.writer.stop(10))
        await asyncio.sleep(5)
        rig.use(held)

        assert (await stopping).stats.counts.committed == 1
        assert await rig.stored() == [held.id]


@virtual_clock
async def test_the_boot_is_recorded_with_its_last_number_when_everything_was_delivered() -> None:
    async with running(linger_s=0) as rig:
        await rig.put_many(3)
        await rig.writer.stop()

        (boot,) = rig.sink.inner.database.boots.values()  # type: ignore[attr-defined]
        assert boot.id == rig.writer.boot_id
        assert boot.last_seq == 3 and boot.closed_at is not None


@virtual_clock
async def test_close_now_accounts_for_everything_without_waiting() -> None:
    async with running(linger_s=0, max_rows=2, flush_concurrency=1) as rig:
        gate = Gate()
        rig.sink.always = gate
        await rig.put_many(5)
        await gate.entered.wait()

        report = rig.writer.close_now()

        assert report.outcome == "aborted" and report.stats.counts.abandoned == 5
        gate.opened.set()


async def never_ending(gate: Gate) -> Committed:
    while not gate.opened.is_set():
        try:
            await gate.opened.wait()
        except asyncio.CancelledError:
            continue
    raise SinkRetryable("at last")
