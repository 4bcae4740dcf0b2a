"""Calls and the sink behind them: what a promise means in each strategy, and what happens without room."""

from __future__ import annotations

import asyncio
import json

import pytest

from backends import letters_in
from backends.testing.faults import fail, fatal, lose_ack
from gateway.keys import SINK, WRITER

LONG_S = 20.0
ONE_PLACE = {"max_queue_rows": 1, "linger_s": 0}


async def soon(awaitable):
    async with asyncio.timeout(LONG_S):
        return await awaitable


async def error_of(response):
    return (await response.json())["error"]


async def holding_a_place(gateway):
    """A call that has the gateway's only place, for as long as the stage does not go on."""
    gateway.stage.plain(gateway.stage.completion("swordfish", 3, 4), gateway.stage.go)
    call = asyncio.ensure_future(gateway.chat())
    await soon(gateway.stage.arrived.wait())
    return call


async def recovered(gateway):
    """Heal the sink, and wait until the writer has found out."""
    sink, probed = gateway.app[SINK], asyncio.Event()
    ping = sink.ping

    async def watched():
        await ping()
        probed.set()

    sink.ping = watched
    sink.heal()
    await soon(probed.wait())
    async with asyncio.timeout(LONG_S):
        while (await gateway.client.get("/health/readiness")).status != 200:
            pass  # a step or two of the loop


# --- single


@pytest.mark.parametrize("model", ["fake:m", "nobody:m"])
async def test_single_commits_the_row_before_the_answer(gateways, model):
    gateway = await gateways("single:sqlite")

    await gateway.chat(model=model)

    assert (gateway.counts.committed, gateway.counts.queued, gateway.counts.in_flight) == (1, 0, 0)


async def test_single_withholds_an_answer_whose_row_is_not_stored(gateways):
    gateway = await gateways("single:faulty")
    gateway.app[SINK].always = fatal()
    gateway.unstored = 1

    response = await gateway.chat(model="fake:m")

    error = await error_of(response)
    assert (response.status, error["code"], error["type"]) == (
        503,
        "usage_not_durable",
        "service_unavailable",
    )
    assert "x-usage-id" not in response.headers
    assert gateway.provider_calls == 1


async def test_single_withholds_an_error_of_the_providers_too(gateways):
    gateway = await gateways("single:faulty")
    gateway.app[SINK].always = fatal()
    gateway.unstored = 1

    response = await gateway.chat(model="fake:m", fake={"status": 429})

    assert (response.status, (await error_of(response))["code"]) == (503, "usage_not_durable")


async def test_single_ends_a_stream_whose_row_is_not_stored_with_an_error_event(gateways):
    gateway = await gateways("single:faulty")
    gateway.app[SINK].always = fatal()
    gateway.unstored = gateway.broken = 1

    response = await gateway.chat(model="fake:m", stream=True)

    assert response.status == 200
    *events, last, rest = (await response.read()).split(b"\n\n")
    assert rest == b"" and len(events) == 6 and b"data: [DONE]" not in events
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "usage_not_durable"


async def test_single_refuses_calls_while_the_sink_is_down_and_serves_again_after(gateways):
    gateway = await gateways("single:faulty")
    gateway.app[SINK].always = fatal()
    gateway.unstored = 1
    await gateway.chat(model="fake:m")

    refused = await gateway.chat(model="fake:m")
    ready = await gateway.client.get("/health/readiness")

    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert (await error_of(refused))["code"] == "usage_log_sink_down"
    assert "x-usage-id" not in refused.headers
    assert gateway.provider_calls == 1, "no money is spent on a call that is refused"
    assert ready.status == 503

    await recovered(gateway)
    assert (await gateway.chat(model="fake:m")).status == 200


async def test_single_tries_again_within_the_call(gateways):
    gateway = await gateways("single:faulty")
    gateway.app[SINK].script(fail())

    response = await gateway.chat(model="fake:m")

    assert response.status == 200
    assert gateway.counts.committed == 1


# --- batch


async def test_batch_answers_while_the_sink_is_down_and_stores_when_it_is_back(gateways):
    gateway = await gateways("faulty")
    gateway.app[SINK].always = fatal()

    responses = [await gateway.chat(model="fake:m", stream=stream) for stream in (False, True)]

    assert [response.status for response in responses] == [200, 200]
    assert all("x-usage-id" in response.headers for response in responses)
    assert gateway.counts.committed == 0
    gateway.app[SINK].heal()
    assert len(await gateway.rows()) == 2


async def test_a_lost_acknowledgement_makes_no_second_row(gateways):
    gateway = await gateways("faulty")
    gateway.app[SINK].script(lose_ack())

    await gateway.chat(model="fake:m")

    assert len(await gateway.rows()) == 1
    assert gateway.counts.duplicates == 1


async def test_a_row_that_the_sink_refuses_for_good_is_a_dead_letter(gateways, tmp_path):
    gateway = await gateways("faulty")
    gateway.app[SINK].poison(lambda row: row.model == "poison", names_rows=True)
    gateway.dead = gateway.broken = 1

    response = await gateway.chat(model="fake:poison")
    await gateway.chat(model="fake:m")

    assert len(await gateway.rows()) == 1
    assert gateway.counts.dead_lettered == 1
    (letter,) = letters_in(tmp_path / "spool-dead")
    assert str(letter.row_id) == response.headers["x-usage-id"]


# --- without room


async def test_reject_refuses_the_call_before_it_costs_anything(gateways):
    gateway = await gateways(batching={**ONE_PLACE, "on_full": "reject"})
    first = await holding_a_place(gateway)

    refused = await gateway.chat(model="fake:m")
    gateway.stage.go.set()

    error = await error_of(refused)
    assert (refused.status, error["code"]) == (503, "usage_log_queue_full")
    assert (refused.headers["Retry-After"], "x-usage-id" in refused.headers) == ("1", False)
    assert (await soon(first)).status == 200
    assert len(await gateway.rows()) == gateway.provider_calls == 1
    assert gateway.app[WRITER].stats().shed == {"queue_full": 1}


@pytest.mark.parametrize("on_full", [{"on_full": "shed"}, {"on_full": "block", "max_block_s": 0.01}])
@pytest.mark.parametrize("stream", [False, True])
async def test_shed_serves_the_call_without_a_row_and_without_a_promise(gateways, on_full, stream):
    gateway = await gateways(batching={**ONE_PLACE, **on_full})
    first = await holding_a_place(gateway)

    shed = await gateway.chat(model="fake:m", stream=stream)
    gateway.stage.go.set()

    assert (shed.status, "x-usage-id" in shed.headers) == (200, False)
    await soon(first)
    assert (len(await gateway.rows()), gateway.provider_calls) == (1, 2)
    ledger = await (await gateway.client.get("/v1/log-writer", headers=gateway.headers())).json()
    assert (ledger["accepted"], ledger["shed"], ledger["unaccounted"]) == (1, {"queue_full": 1}, 0)


async def test_block_lets_the_next_call_in_as_soon_as_there_is_room(gateways):
    gateway = await gateways(batching={**ONE_PLACE, "on_full": "block", "max_block_s": LONG_S})
    first = await holding_a_place(gateway)
    second = asyncio.ensure_future(gateway.chat(model="fake:m"))
    await soon(gateway.asked(2))
    assert gateway.provider_calls == 1

    gateway.stage.go.set()

    assert [(await soon(each)).status for each in (first, second)] == [200, 200]
    assert len(await gateway.rows()) == 2
    assert gateway.app[WRITER].stats().shed == {}
