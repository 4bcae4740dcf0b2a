"""The kit's own tools: a clock that lies in one way only, cancelling everywhere, faults to order."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from random import Random

import pytest

from backends.errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable, SinkRowsRejected
from backends.memory import MemoryDatabase, MemorySink
from backends.record import Batch
from backends.sink import Capabilities, Committed, UsageReader
from backends.testing import (
    CancelPoint,
    FaultySink,
    Gate,
    VirtualClockLoop,
    WouldWaitForEver,
    at_random,
    cancel_at_every_step,
    fail,
    fatal,
    lose_ack,
    make_batch,
    make_record,
    raising,
    refuse,
    run_virtual,
    slow,
    virtual_clock,
)

HOUR_S = 3600.0


# --- the clock


@virtual_clock
async def test_time_jumps_to_the_next_timer() -> None:
    loop = asyncio.get_running_loop()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((name, loop.time()))

    await asyncio.gather(sleeper("late", 3 * HOUR_S), sleeper("early", 0.001), sleeper("mid", 48 * HOUR_S))

    assert woken == [("early", 0.001), ("late", 3 * HOUR_S), ("mid", 48 * HOUR_S)]


@virtual_clock
async def test_time_stands_still_while_there_is_something_to_do() -> None:
    for _ in range(100):
        await asyncio.sleep(0)

    assert asyncio.get_running_loop().time() == 0


@virtual_clock
async def test_a_timeout_fires_at_its_time() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(HOUR_S):
            await asyncio.Event().wait()

    assert asyncio.get_running_loop().time() == HOUR_S


@virtual_clock
async def test_a_thread_that_works_holds_the_time_back() -> None:
    loop = asyncio.get_running_loop()
    may_end = threading.Event()

    timer = asyncio.create_task(asyncio.sleep(HOUR_S))
    threading.Timer(0.01, may_end.set).start()
    await loop.run_in_executor(None, may_end.wait)

    assert loop.time() == 0
    assert not timer.done()
    await timer
    assert loop.time() == HOUR_S


def test_waiting_for_ever_is_an_error_and_no_hang() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(WouldWaitForEver, match="no timer and no thread"):
        run_virtual(main())


def test_spinning_while_no_time_can_pass_is_an_error_and_no_hang() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110  # it is the fault
            await asyncio.sleep(0)

    with pytest.raises(WouldWaitForEver, match="who spins"):
        run_virtual(main())


@virtual_clock
async def test_fixtures_reach_a_test_on_the_virtual_clock(tmp_path: Path) -> None:
    assert tmp_path.name
    assert isinstance(asyncio.get_running_loop(), VirtualClockLoop)


# --- cancelling


def test_the_sweep_cancels_at_each_step_until_the_task_ends_by_itself() -> None:
    reached: list[int] = []

    async def scenario(point: CancelPoint) -> None:
        steps = 0

        async def work() -> None:
            nonlocal steps
            for _ in range(3):
                await asyncio.sleep(1)
                steps += 1

        task = asyncio.create_task(work())
        point.aim(task)
        await asyncio.wait({task})
        reached.append(steps)

    points = cancel_at_every_step(scenario)

    assert points == len(reached) - 1
    assert reached[0] == 0
    assert reached[-1] == 3
    assert reached == sorted(reached)
    assert set(reached) == {0, 1, 2, 3}


def test_the_sweep_finds_a_row_that_nobody_owns() -> None:
    async def scenario(point: CancelPoint) -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        stored: list[str] = []

        async def careless() -> None:
            row = await queue.get()
            await asyncio.sleep(0)  # cancelled here, the row is gone
            stored.append(row)

        task = asyncio.create_task(careless())
        point.aim(task)
        await asyncio.sleep(0)
        queue.put_nowait("row")
        await asyncio.wait({task})
        assert stored or queue.qsize(), "the row is lost"

    with pytest.raises(AssertionError, match="the row is lost") as caught:
        cancel_at_every_step(scenario)

    assert any("cancelled at step" in note for note in caught.value.__notes__)


def test_the_sweep_cancels_a_task_whose_result_has_just_arrived() -> None:
    handed_over = 0

    async def scenario(point: CancelPoint) -> None:
        nonlocal handed_over
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def receiver() -> None:
            await future

        task = asyncio.create_task(receiver())
        point.aim(task)
        await asyncio.sleep(0)
        future.set_result("row")
        await asyncio.wait({task})
        handed_over += task.cancelled() and not future.cancelled()

    cancel_at_every_step(scenario)

    assert handed_over


def test_a_scenario_that_aims_at_nothing_is_an_error() -> None:
    async def scenario(point: CancelPoint) -> None:
        await asyncio.sleep(1)

    with pytest.raises(RuntimeError, match="aim"):
        cancel_at_every_step(scenario)


def test_a_task_that_does_not_end_is_an_error() -> None:
    async def scenario(point: CancelPoint) -> None:
        async def busy() -> None:
            for _ in range(1_000):
                await asyncio.sleep(0)

        task = asyncio.create_task(busy())
        point.aim(task)
        await asyncio.wait({task})

    with pytest.raises(RuntimeError, match="after 20 steps"):
        cancel_at_every_step(scenario, max_steps=20)


# --- faults


async def test_faults_come_in_the_order_of_the_script_and_then_no_more() -> None:
    sink, batch = FaultySink(), make_batch(2)
    sink.script(fail("one"), fail("two", ambiguous=True), times=2)
    sink.script(fatal(), refuse(), raising(lambda: KeyError("driver")))

    errors: list[Exception] = []
    for _ in range(7):
        with pytest.raises(Exception) as caught:
            await sink.write(batch)
        errors.append(caught.value)

    assert [type(error) for error in errors[4:]] == [SinkFatal, SinkBatchRejected, KeyError]
    assert [error.code for error in errors[:4] if isinstance(error, SinkError)] == ["one", "two"] * 2
    assert _rows(sink) == 0
    assert await sink.write(batch) == Committed(2)
    assert sink.batch_ids() == [batch.id] * 8
    assert sink.committed_ids() == {row.id for row in batch.rows}


async def test_a_fault_that_lasts_hits_pings_and_migrations_too_until_it_is_healed() -> None:
    sink = FaultySink()
    sink.always = fail("down")

    for _ in range(2):
        with pytest.raises(SinkRetryable):
            await sink.write(make_batch(1))
        with pytest.raises(SinkRetryable):
            await sink.ping()
        with pytest.raises(SinkRetryable):
            await sink.migrate()
    sink.heal()

    await sink.ping()
    await sink.migrate()
    assert await sink.write(make_batch(1)) == Committed(1)
    assert sink.pings == 3


async def test_a_lost_acknowledgement_comes_after_the_commit() -> None:
    sink, batch = FaultySink(), make_batch(2)
    sink.script(lose_ack())

    with pytest.raises(SinkRetryable) as caught:
        await sink.write(batch)

    assert caught.value.ambiguous
    assert _rows(sink) == 2
    assert await sink.write(batch) == Committed(0, 2)


@pytest.mark.parametrize("after_commit", [False, True])
async def test_a_gate_holds_a_write_before_or_after_its_commit(after_commit: bool) -> None:
    sink, gate = FaultySink(), Gate(after_commit=after_commit)
    sink.script(gate)

    write = asyncio.create_task(sink.write(make_batch(2)))
    await gate.entered.wait()

    assert sink.in_progress == 1
    assert _rows(sink) == (2 if after_commit else 0)
    gate.opened.set()
    assert await write == Committed(2)
    assert sink.in_progress == 0


async def test_poison_names_its_rows_or_leaves_them_to_be_found() -> None:
    rows = (make_record(), make_record(user_id="bad"), make_record())
    batch = Batch.of(rows)
    vague, exact = FaultySink(), FaultySink()
    vague.poison(lambda row: row.user_id == "bad")
    exact.poison(lambda row: row.user_id == "bad", names_rows=True)

    with pytest.raises(SinkBatchRejected):
        await vague.write(batch)
    with pytest.raises(SinkRowsRejected) as caught:
        await exact.write(batch)

    assert set(caught.value.rejected) == {1}
    assert _rows(vague) == _rows(exact) == 0
    assert await vague.write(Batch.of((rows[0], rows[2]))) == Committed(2)


@virtual_clock
async def test_a_hang_is_deaf_to_cancelling_until_it_is_aborted() -> None:
    sink = FaultySink()
    sink.script(sink.hang())

    write = asyncio.create_task(sink.write(make_batch(1)))
    for _ in range(3):
        await asyncio.sleep(HOUR_S)
        write.cancel()
    await asyncio.sleep(HOUR_S)
    assert not write.done()

    sink.abort()
    with pytest.raises(SinkRetryable):
        await write
    assert sink.aborts == 1


@virtual_clock
async def test_a_hang_may_heed_cancelling() -> None:
    sink = FaultySink()
    sink.script(sink.hang(after_commit=True, heeds_cancel=True))

    write = asyncio.create_task(sink.write(make_batch(1)))
    await asyncio.sleep(1)
    write.cancel()
    await asyncio.wait({write})

    assert write.cancelled()
    assert _rows(sink) == 1


@virtual_clock
async def test_a_slow_write_takes_its_time() -> None:
    sink = FaultySink()
    sink.always = slow(2.5)

    await sink.write(make_batch(1))

    assert asyncio.get_running_loop().time() == 2.5


async def test_random_faults_are_the_same_for_the_same_seed() -> None:
    async def run(seed: int) -> list[str]:
        sink = FaultySink()
        sink.always = at_random(Random(seed), (0.3, fail()), (0.2, refuse()))
        for _ in range(50):
            await asyncio.gather(sink.write(make_batch(1)), return_exceptions=True)
        return [type(write.outcome).__name__ for write in sink.writes]

    first = await run(7)

    assert first == await run(7)
    assert set(first) == {"Committed", "SinkRetryable", "SinkBatchRejected"}


async def test_the_wrapped_sink_shines_through() -> None:
    class WriteOnly:
        Options = MemorySink.Options
        capabilities = Capabilities(reads_usage=False)
        batching_defaults = {"flush_concurrency": 3}
        open = MemorySink.open
        write = ping = migrate = record_boot = MemorySink.ping

        def abort(self) -> None: ...

    reader, writer = FaultySink(MemorySink(MemoryDatabase())), FaultySink(WriteOnly())  # type: ignore[arg-type]

    assert isinstance(reader, UsageReader)
    assert not isinstance(writer, UsageReader)
    assert not writer.capabilities.reads_usage
    assert writer.batching_defaults == {"flush_concurrency": 3}


def _rows(sink: FaultySink) -> int:
    assert isinstance(sink.inner, MemorySink)
    return len(sink.inner.database.rows)
