"""Calls that the stop of the gateway ends, and calls that a bug of ours ends: one row each, one last word."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import aiohttp
import pytest

from gateway.attempting import Attempts
from gateway.calls import Call
from gateway.keys import CALLS, LIFECYCLE, WRITER

CHAT = "/v1/chat/completions"
LONG_S = 20.0


def ending(row):
    return row.status, row.end_reason, row.status_code, row.error_code


def usage(row):
    return row.usage_source, row.prompt_tokens, row.completion_tokens, row.total_tokens, row.cost


NOTHING_KNOWN = ("none", None, None, None, None)
TOTALS = ("provider", 3, 4, 7, Decimal("0.000043000"))


async def soon(awaitable):
    async with asyncio.timeout(LONG_S):
        return await awaitable


async def under_way(gateway, **members):
    """A call that has reached the stage, and is answered sooner or later."""
    call = asyncio.ensure_future(gateway.chat(**members))
    await soon(gateway.stage.arrived.wait())
    return call


async def error_of(response):
    return (await response.json())["error"]


def last_event(text):
    *_, last, rest = text.split(b"\n\n")
    assert rest == b""
    return json.loads(last.removeprefix(b"data: "))


# --- the stop


@pytest.mark.parametrize("strategy", ["memory", "single:sqlite"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_without_an_answer_is_told_that_the_gateway_stops(gateways, strategy, stream):
    gateway = await gateways(strategy)
    stage = gateway.stage
    stage.plain({}, asyncio.Event())
    call = await under_way(gateway, stream=stream)

    gateway.app[CALLS].cancel()

    response = await soon(call)
    error = await error_of(response)
    assert (response.status, error["code"], error["type"]) == (503, "shutting_down", "service_unavailable")
    await soon(stage.dropped.wait())
    row = await gateway.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert ending(row) == ("cancelled", "shutdown", 503, "shutting_down")
    assert usage(row) == NOTHING_KNOWN


@pytest.mark.parametrize("strategy", ["memory", "single:sqlite"])
async def test_a_stream_ends_with_the_word_that_the_gateway_stops(gateways, strategy):
    gateway = await gateways(strategy)
    stage = gateway.stage
    counts = {"prompt_tokens": 3, "completion_tokens": 1}
    stage.stream(stage.chunk("one", usage=counts), asyncio.Event())
    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()
    await caller.until(b"one")

    gateway.app[CALLS].cancel()

    rest = await soon(caller.reader.read())
    assert b'"code": "shutting_down"' in rest
    assert rest.endswith(b"\r\n0\r\n\r\n"), "the message is whole"
    await soon(stage.dropped.wait())
    row = await gateway.row()
    assert ending(row) == ("cancelled", "shutdown", 200, "shutting_down")
    assert usage(row) == ("partial", 3, 1, None, Decimal("0.000013000"))


async def test_a_client_that_reads_nothing_does_not_hold_up_the_stop(gateway, stage, monkeypatch):
    monkeypatch.setattr("gateway.streaming.LAST_WORD_S", 0.01)
    stage.stream(*[stage.chunk("swordfish" * 10_000)] * 100, asyncio.Event())
    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()

    gateway.app[CALLS].cancel()

    assert ending(await gateway.row()) == ("cancelled", "shutdown", 200, "shutting_down")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_only_waits_for_its_row_is_given_though_the_gateway_stops(gateways, stream):
    gateway = await gateways("single:faulty")
    stage = gateway.stage
    if stream:
        stage.stream(stage.usage(3, 4), stage.DONE)
    else:
        stage.plain(stage.completion("swordfish", 3, 4))
    gate = gateway.gate()
    call = await under_way(gateway, stream=stream)
    await soon(gate.entered.wait())

    gateway.app[CALLS].cancel()
    gate.opened.set()

    response = await soon(call)
    assert response.status == 200
    if stream:
        assert await response.read() == stage.DONE
    row = await gateway.row()
    assert (ending(row), usage(row)) == (("success", "complete", 200, None), TOTALS)


async def test_a_stream_whose_row_is_not_there_in_time_gets_no_last_event(gateways, monkeypatch):
    monkeypatch.setattr("gateway.streaming.LAST_WORD_S", 0.01)
    gateway = await gateways("single:faulty")
    stage = gateway.stage
    stage.stream(stage.chunk("one"), stage.usage(3, 4), stage.DONE)
    gate = gateway.gate()
    caller = await gateway.call(gateway.body(stream=True))
    await soon(gate.entered.wait())

    gateway.app[CALLS].cancel()

    await caller.head()
    rest = await soon(caller.reader.read())
    assert b"one" in rest and b"[DONE]" not in rest and b"error" not in rest
    gate.opened.set()
    assert usage(await gateway.row()) == TOTALS


async def test_a_call_that_waits_for_a_place_is_told_that_the_gateway_stops(gateways):
    gateway = await gateways(batching={"max_queue_rows": 1, "max_block_s": LONG_S})
    gateway.stage.plain({}, asyncio.Event())
    first = await under_way(gateway)
    second = asyncio.ensure_future(gateway.chat())
    await soon(gateway.asked(2))

    gateway.app[CALLS].cancel()

    assert (await error_of(await soon(first)))["code"] == "shutting_down"
    response = await soon(second)
    assert (response.status, (await error_of(response))["code"]) == (503, "draining")
    assert "x-usage-id" not in response.headers
    assert len(await gateway.rows()) == gateway.provider_calls == 1


async def test_a_gateway_whose_port_is_closed_takes_no_more_calls(gateway, stage):
    stage.plain(stage.completion("swordfish", 3, 4), stage.go)
    running = await under_way(gateway)
    gateway.app[LIFECYCLE].is_closed_to_calls = True

    late = await gateway.chat()
    stage.go.set()

    error = await error_of(late)
    assert (late.status, error["code"], error["type"]) == (503, "draining", "service_unavailable")
    assert "x-usage-id" not in late.headers
    assert (await soon(running)).status == 200
    assert len(await gateway.rows()) == gateway.provider_calls == 1
    assert gateway.metric("gateway_requests_total", endpoint=CHAT, provider="", status_code="503") == 1


async def test_a_writer_that_drains_takes_no_more_calls(gateway):
    await gateway.app[WRITER].stop(LONG_S)

    response = await gateway.chat(model="fake:m")

    assert (response.status, (await error_of(response))["code"]) == (503, "usage_log_closed")
    assert gateway.provider_calls == 0


# --- a bug of ours


def bug(*_, **__):
    raise RuntimeError("a bug of ours")


async def test_a_bug_before_the_answer_is_an_internal_error_with_a_row(gateway, stage, monkeypatch):
    stage.plain(stage.completion("swordfish", 3, 4))
    monkeypatch.setattr(Call, "see_answer", bug)
    gateway.bugs = 1

    response = await gateway.chat()

    text = await response.text()
    assert response.status == 500
    assert "RuntimeError" not in text and "Traceback" not in text
    assert json.loads(text)["error"]["code"] == "internal_error"
    row = await gateway.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert ending(row) == ("error", "internal_error", 500, "internal_error")
    assert gateway.metric("gateway_requests_total", endpoint=CHAT, provider="stage", status_code="500") == 1


async def test_a_bug_before_the_head_of_a_stream_is_an_internal_error_with_a_row(gateway, stage, monkeypatch):
    stage.stream(stage.DONE)
    monkeypatch.setattr(Attempts, "open", bug)
    gateway.bugs = 1

    response = await gateway.chat(stream=True)

    assert (response.status, (await error_of(response))["code"]) == (500, "internal_error")
    assert ending(await gateway.row()) == ("error", "internal_error", 500, "internal_error")


async def test_a_bug_in_mid_stream_ends_it_with_an_error_event_and_a_row(gateway, stage, monkeypatch):
    stage.stream(stage.chunk("one"), stage.go, stage.chunk("two"), stage.DONE)
    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()
    await caller.until(b"one")
    monkeypatch.setattr(Call, "see", bug)
    gateway.bugs = 1

    stage.go.set()

    await caller.until(b'"code": "internal_error"')
    await caller.until(b"\r\n0\r\n\r\n")
    row = await gateway.row()
    assert str(row.id) == caller.headers["x-usage-id"]
    assert ending(row) == ("error", "internal_error", 200, "internal_error")


async def test_a_bug_after_the_last_event_changes_neither_the_answer_nor_the_row(gateway, stage, monkeypatch):
    stage.stream(stage.usage(3, 4), stage.DONE)
    monkeypatch.setattr("gateway.providers.openai.SseStream.finish", bug)
    gateway.bugs = 1

    response = await gateway.chat(stream=True)

    assert await response.read() == stage.DONE
    row = await gateway.row()
    assert (ending(row), usage(row)) == (("success", "complete", 200, None), TOTALS)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_in_the_reckoning_costs_the_cost_and_not_the_row(gateway, monkeypatch, stream):
    monkeypatch.setattr("gateway.calls.cost", bug)
    gateway.bugs = 1

    response = await gateway.chat(model="fake:m", stream=stream)

    assert response.status == 200
    row = await gateway.row()
    assert (row.status, usage(row)) == ("success", NOTHING_KNOWN)


async def test_a_handler_that_something_else_cancels_leaves_a_row(gateway, stage):
    stage.plain({}, asyncio.Event())
    call = await under_way(gateway)
    (task,) = gateway.app[CALLS]._tasks

    task.cancel()

    with pytest.raises(aiohttp.ServerDisconnectedError):
        await soon(call)
    assert ending(await gateway.row()) == ("cancelled", "shutdown", 503, "shutting_down")
    gateway.unheard = 1
