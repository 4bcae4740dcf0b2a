"""Cases 9, 10, 17, 18, 28, 35 to 40: batches on their way, and a sink that fails them."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import pytest

from backends import Place
from backends.batching import BatchingOptions
from backends.dispatch import Dispatcher
from backends.job import Job
from backends.record import row_bytes
from backends.sink import Committed
from backends.testing import (
    CancelPoint,
    Deliver,
    Fault,
    Gate,
    cancel_at_every_step,
    fail,
    fatal,
    lose_ack,
    make_record,
    raising,
    slow,
    virtual_clock,
)
from backends.testing.rig import Rig, running, until


def test_09_cancel_at_every_step_collector() -> None:
    async def scenario(point: CancelPoint) -> None:
        async with running(linger_s=0, max_rows=4, flush_concurrency=1) as rig:
            rig.sink.always = slow(0.01)
            point.aim(task_named("log-writer collector"))
            for _ in range(12):
                await put_if_admitted(rig)
                await asyncio.sleep(0.006)
                rig.check()

    assert cancel_at_every_step(scenario) >= 10


def test_10_cancel_at_every_step_flush() -> None:
    """Whatever step of a write is cancelled, the batch is sent again and every row is there once."""

    async def scenario(point: CancelPoint) -> None:
        async with running(linger_s=0, max_rows=10, flush_concurrency=1) as rig:
            gate = Gate(after_commit=True)
            rig.sink.script(gate, slow(0.02))
            await rig.put_many(10)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            point.aim(task_named("log-writer flush"))
            await asyncio.sleep(0.1)
            gate.opened.set()

            report = await rig.writer.stop()

            assert report.outcome == "drained"
            assert sorted(await rig.stored()) == sorted(rig.given)

    assert cancel_at_every_step(scenario) >= 2


@virtual_clock
async def test_17_start_with_sink_down() -> None:
    async with running(linger_s=0) as rig:
        rig.sink.always = fail("refused")
        await rig.put_many(5)
        await asyncio.sleep(60)
        assert rig.writer.stats().state == "running"
        assert rig.writer.stats().counts.committed == 0

        rig.sink.heal()
        await until(lambda: rig.writer.stats().counts.committed == 5)


@virtual_clock
async def test_18_fails_n_then_recovers() -> None:
    async with running(linger_s=0) as rig:
        rig.sink.script(fail(), times=4)
        await rig.put()
        await until(lambda: rig.writer.stats().counts.committed == 1)

        assert len(rig.sink.writes) == 5
        assert len(set(rig.sink.batch_ids())) == 1, "the same batch, under the same id"
        assert now() <= 0.2 + 0.4 + 0.8 + 1.6, "each pause is at most the doubled one before"


@virtual_clock
async def test_18_the_pauses_are_jittered_within_their_bounds() -> None:
    async with running(linger_s=0, attempt_timeout_s=1000) as rig:
        began: list[float] = []
        rig.sink.script(noting(began, fail()), times=1000)
        await rig.put()
        await asyncio.sleep(300)

        pauses = [later - earlier for earlier, later in zip(began, began[1:], strict=False)]
        assert len(set(pauses)) == len(pauses)
        assert all(pause <= 30 for pause in pauses)


@virtual_clock
async def test_19_ack_lost_after_commit() -> None:
    async with running(linger_s=0) as rig:
        rig.sink.script(lose_ack())
        await rig.put_many(6)

        report = await rig.writer.stop()

        assert len(await rig.stored()) == 6
        assert (report.stats.counts.committed, report.stats.counts.duplicates) == (0, 6)


@virtual_clock
async def test_28_no_bisect_on_ambiguous() -> None:
    async with running(linger_s=0) as rig:
        rig.sink.script(fail("timeout", ambiguous=True), raising(lambda: ValueError("no type of ours")))
        await rig.put_many(8)
        await until(lambda: rig.writer.stats().counts.committed == 8)

        assert len(set(rig.sink.batch_ids())) == 1
        assert [len(write.row_ids) for write in rig.sink.writes] == [8, 8, 8]


@virtual_clock
async def test_28_an_attempt_that_times_out_is_sent_again_whole_and_later_batches_are_smaller() -> None:
    async with running(linger_s=0, attempt_timeout_s=10, max_rows=100) as rig:
        rig.sink.script(rig.sink.hang(heeds_cancel=True))
        await rig.put_many(100)
        await until(lambda: rig.writer.stats().counts.committed == 100)
        assert now() >= 10
        assert len(set(rig.sink.batch_ids())) == 1

        await rig.put_many(100)
        await rig.writer.flush(10)

        assert len(rig.sink.writes[2].row_ids) < 100


@virtual_clock
async def test_32_fatal_auth_or_schema() -> None:
    async with running(linger_s=0, max_rows=10) as rig:
        rig.sink.always = fatal("28P01")
        await rig.put_many(30)
        await asyncio.sleep(120)

        stats = rig.writer.stats()
        assert stats.counts.dead_lettered == 0, "a changed password is no reason to bury rows"
        assert stats.degraded["sink_refuses"] == "28P01"
        assert len(rig.sink.writes) < 30, "and none to knock on its door all the time"

        rig.sink.heal()
        await until(lambda: rig.writer.stats().counts.committed == 30)
        assert not rig.writer.stats().degraded


@virtual_clock
async def test_35_batch_shape() -> None:
    size = row_bytes(make_record())
    limit = BatchingOptions(max_bytes=16384).max_bytes
    async with running(linger_s=0.2, max_rows=7, max_bytes=limit) as rig:
        for _ in range(40):
            await rig.put_many(3, error_message="x" * 900)
            await asyncio.sleep(0.03)
        await rig.writer.stop()

        for write in rig.sink.writes:
            assert len(write.row_ids) <= 7
            assert len(write.row_ids) * (size + 900) <= limit + size + 900


@virtual_clock
async def test_35_linger_is_never_exceeded() -> None:
    async with running(linger_s=0.2, max_rows=100) as rig:
        began: list[float] = []
        rig.sink.script(noting(began), times=10)
        await asyncio.sleep(5)
        await rig.put()
        await asyncio.sleep(0.1)
        await rig.put()
        await asyncio.sleep(1)

        assert began == [pytest.approx(5.2)]
        assert len(rig.sink.writes[0].row_ids) == 2


@virtual_clock
async def test_35_a_full_batch_does_not_wait_for_the_linger() -> None:
    async with running(linger_s=3600, max_rows=5) as rig:
        await rig.put_many(5)
        await asyncio.sleep(0.001)

        assert [len(write.row_ids) for write in rig.sink.writes] == [5]


@virtual_clock
async def test_36_flush_barrier() -> None:
    async with running(linger_s=3600, flush_concurrency=1) as rig:
        gate = Gate()
        rig.sink.script(gate)
        early = await rig.put_many(3)
        flushing = asyncio.ensure_future(rig.writer.flush(60))
        await gate.entered.wait()
        late = await rig.put()
        gate.opened.set()

        report = await flushing

        assert report.outcome == "ok"
        assert set(early) <= rig.sink.committed_ids()
        assert late not in rig.sink.committed_ids(), "rows accepted later are not waited for"


@virtual_clock
async def test_36_flush_honours_its_deadline() -> None:
    async with running(linger_s=0) as rig:
        rig.sink.always = fail()
        await rig.put_many(4)

        report = await rig.writer.flush(2.5)

        assert now() == pytest.approx(2.5)
        assert (report.outcome, report.rows_left) == ("timed_out", 4)


@virtual_clock
async def test_36_flush_of_a_closed_writer_is_done_at_once() -> None:
    async with running() as rig:
        await rig.writer.stop()
        assert (await rig.writer.flush(60)).outcome == "ok"
        assert now() == 0


@virtual_clock
async def test_37_pipelining_order_and_isolation() -> None:
    async with running(linger_s=0, max_rows=2, flush_concurrency=3) as rig:
        first, middle, last = Gate(), Gate(), Gate()
        rig.sink.script(first, failing_behind(middle), last)
        await rig.put_many(6)
        await last.entered.wait()
        assert rig.sink.in_progress == 3

        middle.opened.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert rig.sink.in_progress >= 2, "no sibling is cancelled"
        last.opened.set()
        first.opened.set()
        report = await rig.writer.stop()

        assert report.stats.counts.committed == 6
        assert len(rig.sink.writes) == 4


@virtual_clock
async def test_38_breaker_cycle() -> None:
    async with running(linger_s=0, max_rows=50) as rig:
        states: list[str] = []
        rig.sink.always = fail()
        await rig.put_many(200)
        await watch(rig, states, seconds=120)
        probes = len(rig.sink.writes) - 5
        assert rig.writer.stats().breaker == "open"
        assert probes <= 20, "an outage of two minutes costs a bounded number of probes"

        rig.sink.heal()
        await watch(rig, states, seconds=60)

        assert states[0] == "closed" and states[-1] == "closed"
        assert "open" in states
        assert rig.writer.stats().counts.committed == 200


@virtual_clock
async def test_38_an_idle_writer_notices_by_itself_that_the_sink_is_back() -> None:
    async with running(linger_s=0) as rig:
        rig.sink.always = fatal()
        await rig.put()
        await until(lambda: rig.writer.stats().breaker == "open")
        rig.sink.heal()
        await until(lambda: rig.writer.stats().breaker == "closed")


@virtual_clock
async def test_39_collector_bug_supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(linger_s=0) as rig:
        break_dispatcher(monkeypatch, times=1)
        await rig.put_many(3)
        await asyncio.sleep(1)

        assert rig.writer.stats().state == "running", "restarted once, with the same queue"
        assert rig.writer.stats().counts.committed == 3


@virtual_clock
async def test_39_a_second_crash_of_the_collector_is_visible_and_accounted_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(linger_s=0) as rig:
        break_dispatcher(monkeypatch, times=2)
        await rig.put_many(3)
        await asyncio.sleep(1)

        assert rig.writer.stats().state == "failed"
        assert (await rig.refusal()).reason == "failed"
        assert (await rig.writer.flush(60)).outcome == "failed"
        report = await rig.writer.stop()
        assert report.stats.counts.abandoned == 3


@virtual_clock
async def test_39_a_row_whose_texts_cannot_be_cleaned_keeps_its_money_and_the_others_go_on() -> None:
    class Broken(str):
        def isascii(self) -> bool:
            raise RuntimeError("a text that cannot be looked at")

    async with running(linger_s=0) as rig:
        await rig.put()
        bad = await rig.put(error_message=Broken("x" * 300), cost=Decimal("1.5"))  # too long for one look
        await rig.put()

        report = await rig.writer.stop()

        assert report.stats.counts.committed == 3
        row = rig.sink.inner.database.rows[bad]  # type: ignore[attr-defined]
        assert (row.cost, row.error_message, row.status) == (Decimal("1.5"), None, "success")


@virtual_clock
async def test_40_clock_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(linger_s=0.2, max_rows=100) as rig:
        began: list[float] = []
        rig.sink.script(noting(began), times=10)
        first = await rig.put()
        real = time.time
        for day in (+86400, -86400):
            monkeypatch.setattr(time, "time", lambda day=day: real() + day)
            await asyncio.sleep(0.05)
        second = await rig.put()
        await asyncio.sleep(1)

        assert began == [pytest.approx(0.2)], "linger is loop time"
        assert first != second


@virtual_clock
async def test_56_a_batch_that_is_overdue_shows_and_is_not_given_up() -> None:
    async with running(linger_s=0, batch_deadline_s=120) as rig:
        rig.sink.always = fail()
        await rig.put()
        await asyncio.sleep(600)

        assert "batch_overdue" in rig.writer.stats().degraded
        assert rig.writer.stats().oldest_row_s >= 600
        rig.sink.heal()
        assert (await rig.writer.stop(40)).stats.counts.committed == 1


@virtual_clock
async def test_a_sink_that_asks_for_fewer_batches_gets_fewer() -> None:
    async with running(linger_s=0.2, max_rows=1000) as rig:
        rig.sink.script(fail("too_many_parts", slow_down=True), times=3)
        await rig.put()
        await asyncio.sleep(20)
        before = len(rig.sink.writes)
        began = now()
        await rig.put()
        await until(lambda: len(rig.sink.writes) > before)

        assert now() - began > 0.2


# --- helpers


def now() -> float:
    return asyncio.get_running_loop().time()


async def put_if_admitted(rig: Rig) -> None:
    place = await rig.writer.reserve()
    if isinstance(place, Place):
        rig.use(place)


def task_named(name: str) -> asyncio.Task[object]:
    return next(task for task in asyncio.all_tasks() if task.get_name() == name)


async def healthy(deliver: Deliver) -> Committed:
    return await deliver()


def noting(began: list[float], fault: Fault = healthy) -> Fault:
    async def noted(deliver: Deliver) -> Committed:
        began.append(now())
        return await fault(deliver)

    return noted


def failing_behind(gate: Gate) -> Fault:
    async def fault(deliver: Deliver) -> Committed:
        gate.entered.set()
        await gate.opened.wait()
        return await fail()(deliver)

    return fault


async def watch(rig: Rig, states: list[str], seconds: float) -> None:
    end = now() + seconds
    while now() < end:
        state = rig.writer.stats().breaker
        if not states or states[-1] != state:
            states.append(state)
        await asyncio.sleep(0.01)


def break_dispatcher(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    real = Dispatcher.next
    left = iter(range(times))

    def next_job(self: Dispatcher, at: float) -> Job | None:
        if next(left, None) is not None:
            raise RuntimeError("a bug of the collector's")
        return real(self, at)

    monkeypatch.setattr(Dispatcher, "next", next_job)
