"""The other two strategies: ``single`` tells each call where its row ended, ``noop`` keeps nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backends import NoopLogWriter, NotDurable, Place, Refused, SingleLogWriter, StateError
from backends.testing import (
    CancelPoint,
    Gate,
    cancel_at_every_step,
    fail,
    lose_ack,
    make_record,
    slow,
    virtual_clock,
)
from backends.testing.rig import Rig, running, until


@asynccontextmanager
async def single(**options: Any) -> AsyncIterator[Rig]:
    async with running(kind=SingleLogWriter, **options) as rig:
        yield rig


async def used_place(rig: Rig, **fields: Any) -> Place:
    place = await rig.place()
    rig.use(place, **fields)
    return place


def now() -> float:
    return asyncio.get_running_loop().time()


# --- single


@virtual_clock
async def test_a_row_is_in_the_sink_when_durable_returns() -> None:
    async with single(linger_s=3600) as rig:
        place = await used_place(rig)

        await place.durable()

        assert await rig.stored() == [place.id]
        assert now() == 0, "there is no linger within a call"
        await place.durable()


@virtual_clock
async def test_there_is_no_further_place_while_the_sink_is_down() -> None:
    async with single(attempt_timeout_s=1) as rig:
        held = await rig.place()
        rig.sink.always = fail()
        for _ in range(20):
            if rig.writer.stats().breaker != "closed":
                break
            rig.use(place := await rig.place())
            with pytest.raises(NotDurable):
                await place.durable()

        assert rig.writer.stats().breaker != "closed"
        assert rig.writer.reserve_now() is None
        held.release()
        rig.sink.heal()


@virtual_clock
async def test_rows_of_calls_that_end_together_share_a_statement() -> None:
    async with single() as rig:
        places = [await used_place(rig) for _ in range(50)]

        await asyncio.gather(*(place.durable() for place in places))

        assert [len(write.row_ids) for write in rig.sink.writes] == [50]


@virtual_clock
async def test_a_lost_answer_is_asked_for_again_within_the_call() -> None:
    async with single() as rig:
        rig.sink.script(lose_ack(), fail())
        place = await used_place(rig)

        await place.durable()

        assert await rig.stored() == [place.id]
        assert len(rig.sink.writes) == 3


@virtual_clock
async def test_a_row_that_cannot_be_stored_in_time_is_given_up_and_its_call_told_so() -> None:
    async with single(attempt_timeout_s=2) as rig:
        rig.sink.script(fail(), times=4)
        rig.sink.always = rig.sink.hang(heeds_cancel=True)
        place = await used_place(rig)

        with pytest.raises(NotDurable) as caught:
            await place.durable()

        assert caught.value.reason == "abandoned"
        assert now() <= 4.01
        assert rig.writer.stats().counts.abandoned == 1


@virtual_clock
async def test_a_sink_that_ignores_its_timeout_does_not_hold_the_call() -> None:
    async with single(attempt_timeout_s=2) as rig:
        rig.sink.always = rig.sink.hang()
        place = await used_place(rig)

        with pytest.raises(NotDurable) as caught:
            await place.durable()

        assert caught.value.reason == "in_flight"
        assert now() == pytest.approx(4)


@virtual_clock
async def test_calls_are_refused_while_the_sink_is_down_and_served_when_it_is_back() -> None:
    async with single() as rig:
        rig.sink.always = fail()
        places = [await used_place(rig) for _ in range(3)]
        answers = await asyncio.gather(*(place.durable() for place in places), return_exceptions=True)

        assert all(isinstance(answer, NotDurable) for answer in answers)
        assert rig.writer.stats().counts.abandoned == 3
        assert await rig.refusal() == Refused("sink_down", is_call_served=False)
        assert rig.writer.stats().would_refuse == "sink_down"

        rig.sink.heal()
        await until(lambda: rig.writer.stats().would_refuse is None)
        await (await used_place(rig)).durable()


@virtual_clock
async def test_a_row_that_is_refused_for_good_is_safe_in_the_dead_letters() -> None:
    async with single() as rig:
        rig.sink.poison(lambda row: row.user_id == "bad")
        bad, good = await used_place(rig, user_id="bad"), await used_place(rig)

        await asyncio.gather(bad.durable(), good.durable())

        assert rig.box.ids() == [bad.id]
        assert await rig.stored() == [good.id]


@virtual_clock
async def test_a_place_without_a_row_has_nothing_to_wait_for() -> None:
    async with single() as rig:
        place = await rig.place()
        await place.durable()
        place.release()


def test_a_call_that_stops_waiting_changes_no_custody() -> None:
    async def scenario(point: CancelPoint) -> None:
        async with single() as rig:
            rig.sink.always = slow(0.1)
            place = await used_place(rig)
            waiting = asyncio.ensure_future(place.durable())
            point.aim(waiting)
            await asyncio.wait({waiting})
            await rig.writer.flush(10)

            assert await rig.stored() == [place.id]

    assert cancel_at_every_step(scenario) >= 2


@virtual_clock
async def test_a_stop_waits_for_the_rows_of_calls_and_their_calls_hear_of_them() -> None:
    async with single() as rig:
        gate = Gate()
        rig.sink.script(gate)
        waiting = asyncio.ensure_future((await used_place(rig)).durable())
        await gate.entered.wait()
        stopping = asyncio.ensure_future(rig.writer.stop())
        await asyncio.sleep(1)
        gate.opened.set()

        report = await stopping

        assert report.outcome == "drained"
        await waiting


@virtual_clock
async def test_no_receipt_is_kept_of_a_row_that_is_settled() -> None:
    async with single() as rig:
        assert isinstance(rig.writer, SingleLogWriter)
        for _ in range(5):
            await (await used_place(rig)).durable()

        assert not rig.writer._receipts, "or it would grow for as long as the gateway runs"


@virtual_clock
async def test_batch_promises_nothing_before_the_answer() -> None:
    async with running(linger_s=3600) as rig:
        place = await used_place(rig)

        await place.durable()

        assert now() == 0
        assert await rig.stored() == []


# --- noop


@virtual_clock
async def test_noop_serves_every_call_and_keeps_no_row() -> None:
    writer = NoopLogWriter()
    await writer.start()

    assert await writer.reserve() == Refused("noop", is_call_served=True)
    await writer.put(make_record())
    assert (await writer.flush(10)).outcome == "ok"

    stats = writer.stats().to_json()
    assert (stats["state"], stats["strategy"]) == ("running", "noop")
    assert {stats[name] for name in ("accepted", "committed", "queued", "in_flight", "unaccounted")} == {0}
    assert stats["shed"] == {}


@virtual_clock
async def test_noop_has_one_more_place_in_which_nothing_is_kept() -> None:
    writer = NoopLogWriter()
    await writer.start()

    place = writer.reserve_now()
    assert place is not None
    place.put(make_record())
    await place.durable()
    spare = writer.reserve_now()
    assert spare is not None
    spare.release()

    stats = writer.stats().to_json()
    assert {stats[name] for name in ("accepted", "queued", "in_flight", "unaccounted")} == {0}


@virtual_clock
async def test_noop_starts_once_and_stops_as_often_as_asked() -> None:
    writer = NoopLogWriter()
    await writer.start()
    with pytest.raises(StateError):
        await writer.start()

    reports = [await writer.stop(), await writer.stop(0), writer.close_now()]

    assert all(report.is_clean and report.outcome == "drained" for report in reports)
    assert writer.stats().state == "closed"
    with pytest.raises(StateError):
        await writer.start()
