"""Cases 11 to 16, 31, 33 and 55: who gets a place, and what becomes of it."""

from __future__ import annotations

import asyncio
import os

import pytest

from backends import Place, Refused, StateError
from backends.record import MAX_ROW_BYTES
from backends.testing import (
    CancelPoint,
    FaultySink,
    Gate,
    cancel_at_every_step,
    make_largest_record,
    make_record,
    slow,
    virtual_clock,
)
from backends.testing.rig import LetterBox, Rig, build_writer, running


def test_11_cancel_reserve_waiting_for_room() -> None:
    async def scenario(point: CancelPoint) -> None:
        async with running(max_queue_rows=1, max_block_s=5) as rig:
            held = await rig.place()
            calls = [asyncio.ensure_future(take_and_give_back(rig)) for _ in range(3)]
            point.aim(calls[1])
            await asyncio.sleep(1)
            held.release()
            await asyncio.wait(calls)

            assert not calls[0].cancelled() and not calls[2].cancelled()
            assert rig.writer.stats().queue_rows == 0, "no place leaked"

    assert cancel_at_every_step(scenario) >= 3


def test_12_getter_done_then_cancelled() -> None:
    """The row is handed over in the very step in which the collector is cancelled: it is still owned."""

    async def scenario(point: CancelPoint) -> None:
        async with running(linger_s=0) as rig:
            point.aim(collector())
            await rig.put()
            await asyncio.sleep(0)
            await rig.put()
            await asyncio.sleep(1)

    assert cancel_at_every_step(scenario) >= 3


@virtual_clock
async def test_13_put_during_stop() -> None:
    async with running(linger_s=0.01, max_rows=3) as rig:
        rig.sink.always = slow(0.002)
        refusals: list[Refused] = []
        producers = [asyncio.ensure_future(produce(rig, refusals)) for _ in range(5)]
        await asyncio.sleep(1)

        report = await rig.writer.stop()
        await asyncio.wait(producers)

        assert report.outcome == "drained"
        assert report.stats.counts.committed == len(rig.given) > 20
        assert {refused.reason for refused in refusals} <= {"draining", "closed"}
        assert len(refusals) == 5 == sum(rig.writer.stats().shed.values())


@virtual_clock
async def test_14_put_after_stop() -> None:
    async with running() as rig:
        await rig.writer.stop()

        refused = await rig.refusal()
        await rig.writer.put(make_record())

        assert refused == Refused("closed")
        assert rig.writer.stats().shed == {"closed": 2}


@virtual_clock
async def test_14_a_place_that_outlives_the_writer_has_its_row_counted_as_abandoned() -> None:
    async with running() as rig:
        place = await rig.place()
        await rig.writer.stop(0)

        rig.use(place)

        counts = rig.writer.stats().counts
        assert (counts.accepted, counts.abandoned) == (1, 1)
        assert (await rig.writer.stop()).ids_sample == (place.id,)


@virtual_clock
async def test_15_put_before_start() -> None:
    writer = build_writer(FaultySink(), LetterBox())

    assert await writer.reserve() == Refused("not_started")
    assert writer.stats().shed == {"not_started": 1}


@virtual_clock
async def test_16_double_start() -> None:
    async with running() as rig:
        with pytest.raises(StateError):
            await rig.writer.start()
        await rig.put()


@virtual_clock
async def test_16_start_after_stop() -> None:
    async with running() as rig:
        await rig.writer.stop()
        with pytest.raises(StateError):
            await rig.writer.start()


@virtual_clock
async def test_31_duplicate_id_submitted_twice() -> None:
    async with running(linger_s=0) as rig:
        row = make_record()
        await rig.writer.put(row)
        await rig.writer.flush(10)
        await rig.writer.put(row)
        rig.given += [row.id, row.id]

        report = await rig.writer.stop()

        assert (report.stats.counts.committed, report.stats.counts.duplicates) == (1, 1)
        assert await rig.stored() == [row.id]


@virtual_clock
async def test_33_slow_sink_backpressure() -> None:
    async with running(linger_s=0, max_rows=10, max_queue_rows=40, flush_concurrency=1) as rig:
        rig.sink.always = slow(1.0)
        served_without = 0
        for _ in range(600):
            began = now()
            place = await rig.writer.reserve()
            assert now() - began <= 0.25 + 1e-6, "a call waits for room no longer than max_block_s"
            if isinstance(place, Place):
                rig.use(place)
            else:
                served_without += place.is_call_served
            assert rig.writer.stats().queue_rows <= 40
            await asyncio.sleep(0.01)

        rig.sink.heal()
        report = await rig.writer.stop(60)

        assert report.stats.shed == {"queue_full": served_without}
        assert served_without > 0
        assert report.stats.counts.committed == len(rig.given), "nothing with a place is shed"


@pytest.mark.parametrize(("on_full", "is_served"), [("shed", True), ("reject", False)])
def test_33_without_room_the_call_is_served_or_refused_as_configured(on_full: str, is_served: bool) -> None:
    @virtual_clock
    async def scenario() -> None:
        async with running(max_queue_rows=1, on_full=on_full) as rig:
            place = await rig.place()
            began = now()

            refused = await rig.refusal()

            assert now() == began, "neither waits"
            assert refused == Refused("queue_full", is_call_served=is_served)
            assert rig.writer.stats().would_refuse == (None if is_served else "queue_full")
            place.release()

    scenario()


@virtual_clock
async def test_33_calls_that_wait_for_room_get_it_in_their_order() -> None:
    async with running(max_queue_rows=1, max_block_s=100) as rig:
        held = await rig.place()
        order: list[int] = []

        async def call(number: int) -> None:
            place = await rig.place()
            order.append(number)
            await asyncio.sleep(1)
            place.release()

        calls = [asyncio.ensure_future(call(number)) for number in range(5)]
        await asyncio.sleep(1)
        held.release()
        await asyncio.wait(calls)

        assert order == [0, 1, 2, 3, 4]


@virtual_clock
async def test_one_more_place_is_there_at_once_or_not_at_all() -> None:
    async with running(max_queue_rows=2, max_block_s=100) as rig:
        held, began = await rig.place(), now()

        one_more = rig.writer.reserve_now()
        assert one_more is not None and one_more.id != held.id
        assert rig.writer.reserve_now() is None
        one_more.release()
        again = rig.writer.reserve_now()

        assert again is not None and now() == began
        rig.use(again)
        rig.use(held)
        assert rig.writer.stats().shed == {}, "the call has its row all the same"


@virtual_clock
async def test_one_more_place_is_not_taken_from_those_who_wait() -> None:
    async with running(max_queue_rows=1, max_block_s=100) as rig:
        held = await rig.place()
        waiting = asyncio.ensure_future(rig.place())
        await asyncio.sleep(1)
        held.release()

        assert rig.writer.reserve_now() is None
        (await waiting).release()
        one_more = rig.writer.reserve_now()
        assert one_more is not None
        one_more.release()


@virtual_clock
async def test_there_is_no_further_place_before_the_start_and_from_the_stop_on() -> None:
    writer = build_writer(FaultySink(), LetterBox())
    assert writer.reserve_now() is None

    async with running() as rig:
        await rig.writer.stop()
        assert rig.writer.reserve_now() is None
        assert rig.writer.stats().shed == {}


@virtual_clock
async def test_34_memory_bound_bytes() -> None:
    """The bound holds in bytes, a place counted as the largest row; RSS is for a process of its own."""
    bound = 10 * MAX_ROW_BYTES
    async with running(max_queue_bytes=bound, max_block_s=0, linger_s=3600, flush_concurrency=1) as rig:
        gate = Gate()
        rig.sink.always = gate
        while isinstance(place := await rig.writer.reserve(), Place):
            place.put(make_largest_record())
            rig.given.append(place.id)
            assert rig.writer.stats().queue_bytes <= bound

        assert len(rig.given) >= 10
        gate.opened.set()


@virtual_clock
async def test_a_place_given_back_can_be_used_by_the_next_call() -> None:
    async with running(max_queue_rows=1, max_block_s=0) as rig:
        for _ in range(3):
            place = await rig.place()
            assert (await rig.refusal()).reason == "queue_full"
            place.release()
            place.release()


@virtual_clock
async def test_a_place_takes_one_row_only() -> None:
    async with running(linger_s=0) as rig:
        place = await rig.place()
        rig.use(place)

        place.put(make_record())
        place.release()

        assert rig.writer.stats().counts.accepted == 1


@virtual_clock
async def test_the_row_is_stored_under_the_id_of_its_place_whatever_id_it_bears() -> None:
    async with running(linger_s=0) as rig:
        place = await rig.place()
        place.put(make_record())
        rig.given.append(place.id)

        await rig.writer.stop()

        assert await rig.stored() == [place.id]


@virtual_clock
async def test_55_fork_after_start() -> None:
    async with running() as rig:
        rig.writer._pid = os.getpid() + 1  # as a forked child sees it

        assert await rig.refusal() == Refused("forked")


@virtual_clock
async def test_numbers_of_a_boot_have_no_gaps() -> None:
    async with running(linger_s=0, max_rows=7) as rig:
        await rig.put_many(40)
        await rig.writer.stop()

        rows = rig.sink.inner.database.rows.values()  # type: ignore[attr-defined]
        assert sorted(row.seq for row in rows) == list(range(1, 41))
        assert {row.boot_id for row in rows} == {rig.writer.boot_id}


def now() -> float:
    return asyncio.get_running_loop().time()


def collector() -> asyncio.Task[None]:
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "log-writer collector")
    return task


async def take_and_give_back(rig: Rig) -> None:
    (await rig.place()).release()


async def produce(rig: Rig, refusals: list[Refused]) -> None:
    while isinstance(place := await rig.writer.reserve(), Place):
        await asyncio.sleep(0.003)
        rig.use(place)
    refusals.append(place)
