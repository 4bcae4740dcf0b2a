"""Cases 8 and 41 without a process: the loop ends around the writer, and every row is accounted for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backends import BatchLogWriter, NotDurable, SingleLogWriter
from backends.testing import (
    CancelPoint,
    Fault,
    FaultySink,
    Gate,
    cancel_at_every_step,
    raising,
    run_virtual,
    slow,
    virtual_clock,
)
from backends.testing.rig import LetterBox, Rig, build_writer, running

LONG_S = 3600.0


def test_08_drain_task_cancelled_at_every_step() -> None:
    async def scenario(point: CancelPoint) -> None:
        async with running(linger_s=LONG_S, max_rows=4, flush_concurrency=1) as rig:
            rig.sink.always = slow(0.01)
            await rig.put_many(10)
            stopping = asyncio.ensure_future(rig.writer.stop())
            await asyncio.sleep(0)
            point.aim(task_named("log-writer drain"))

            report = await stopping

            counts = report.stats.counts
            assert report.outcome == ("aborted" if point.is_hit else "drained")
            assert counts.committed + counts.abandoned == 10
            assert len(report.ids_sample) == counts.abandoned

    assert cancel_at_every_step(scenario) >= 5


def test_08_stop_caller_and_everything_else_cancelled_at_every_step() -> None:
    """As ``asyncio.run`` does it to a program that is interrupted: all tasks at once, in any order."""

    async def scenario(point: CancelPoint) -> None:
        async with running(linger_s=0, max_rows=3) as rig:
            rig.sink.always = slow(0.01)
            await rig.put_many(8)
            await asyncio.sleep(0.005)
            stopping = asyncio.ensure_future(rig.writer.stop())
            reaper = asyncio.ensure_future(end_everything_when_cancelled())
            point.aim(reaper)
            await asyncio.wait({stopping, reaper}, return_when=asyncio.FIRST_COMPLETED)
            reaper.cancel()

            report = await rig.writer.stop()

            assert report.stats.counts.committed + report.stats.counts.abandoned == 8
            assert rig.writer.stats().state == "closed"

    assert cancel_at_every_step(scenario, max_steps=200) >= 5


@pytest.mark.parametrize("linger_s", [0, LONG_S], ids=["in flight", "queued"])
def test_08_loop_closed_without_stop(linger_s: float, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> BatchLogWriter:
        rig = await abandoned_rig(Gate(), linger_s=linger_s)
        await rig.put_many(3)
        await asyncio.sleep(1)
        return rig.writer

    writer = run_virtual(main())

    counts = writer.stats().counts
    assert writer.stats().state == "closed"
    assert (counts.abandoned, counts.unaccounted) == (3, 0)
    assert len(named_ids(caplog)) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_08_interrupt_out_of_a_write_ends_the_loop_and_the_row_is_counted(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    writers: list[BatchLogWriter] = []

    async def main() -> None:
        rig = await abandoned_rig(raising(error))
        writers.append(rig.writer)
        await rig.put_many(2)
        await asyncio.sleep(1)

    with pytest.raises(error):
        run_virtual(main())

    counts = writers[0].stats().counts
    assert writers[0].stats().state == "closed"
    assert (counts.abandoned, counts.unaccounted) == (2, 0)
    assert len(named_ids(caplog)) == 2


def test_08_call_that_waits_for_its_row_learns_that_it_is_gone() -> None:
    @virtual_clock
    async def scenario() -> None:
        async with running(kind=SingleLogWriter) as rig:
            rig.sink.always = Gate()
            place = await rig.place()
            rig.use(place)
            waiting = asyncio.ensure_future(place.durable())
            await asyncio.sleep(1)

            rig.writer.close_now()

            with pytest.raises(NotDurable, match="abandoned"):
                await waiting

    scenario()


# --- helpers


async def abandoned_rig(fault: Fault, **options: Any) -> Rig:
    """A rig that nobody will stop."""
    sink, box = FaultySink(), LetterBox()
    rig = Rig(build_writer(sink, box, **{"linger_s": 0, **options}), sink, box)
    await rig.writer.start()
    sink.always = fault
    return rig


def task_named(name: str) -> asyncio.Task[object]:
    return next(task for task in asyncio.all_tasks() if task.get_name() == name)


async def end_everything_when_cancelled() -> None:
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("log-writer"):
                task.cancel()
        raise


def named_ids(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [row_id for record in caplog.records for row_id in getattr(record, "ids", [])]
