"""Clients that leave, at every moment: what the provider bills is known all the same, in the one row."""

from __future__ import annotations

import asyncio
import gc
from decimal import Decimal

import pytest
from aiohttp import web

from gateway import departure
from gateway.keys import CALLS, METRICS, PRINCIPAL, PUMPS

LEFT = ("cancelled", "client_disconnect", 499, None)
STOPPED = ("cancelled", "shutdown", 499, "shutting_down")
LONG_S = 20.0
CALLS_LEFT = 10


def ending(row):
    return row.status, row.end_reason, row.status_code, row.error_code


def usage(row):
    return row.usage_source, row.prompt_tokens, row.completion_tokens, row.total_tokens, row.cost


TOTALS = ("provider", 3, 4, 7, Decimal("0.000043000"))
NOTHING_KNOWN = ("none", None, None, None, None)


@pytest.fixture
def looking(monkeypatch):
    """The gateway looks often, so that nobody waits for it to notice."""
    monkeypatch.setattr(departure, "LOOK_S", 0.005)


@pytest.fixture(params=["by looking", "by writing"])
def noticed(request, monkeypatch):
    """The two ways of noticing that a client left."""
    monkeypatch.setattr(departure, "LOOK_S", 0.005 if request.param == "by looking" else 1000.0)


async def soon(awaitable):
    async with asyncio.timeout(LONG_S):
        return await awaitable


async def arrived(gateway, **members):
    """A call that has reached the stage, and whose client can leave."""
    caller = await gateway.call(gateway.body(**members))
    await soon(gateway.stage.arrived.wait())
    return caller


def bug(*_):
    raise RuntimeError("a bug of ours")


def note_guards(monkeypatch):
    """The guards of all streams to come; each says when it has noticed that its client left."""
    guards = []

    class Noted(departure.Departure):
        def __init__(self, *args):
            self.noticed = asyncio.Event()
            guards.append(self)
            super().__init__(*args)

        def _look(self):
            super()._look()
            if self.left_at is not None:
                self.noticed.set()

    monkeypatch.setattr("gateway.streaming.Departure", Noted)
    return guards


def note_adoptions(gateway, monkeypatch):
    """Since when the client of each adopted stream was said to be gone."""
    since = []
    pumps = gateway.app[PUMPS]
    adopt = pumps.adopt
    monkeypatch.setattr(pumps, "adopt", lambda *args: (since.append(args[3]), adopt(*args)))
    return since


async def in_mid_stream(gateway):
    """A stream whose client has had its first event."""
    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()
    await caller.until(b"one")
    return caller


# --- a plain answer


async def test_a_client_that_leaves_before_its_answer_has_a_row_with_what_it_cost(gateway, stage):
    stage.plain(stage.completion("swordfish", 3, 4), stage.go)
    caller = await arrived(gateway)
    gateway.unheard = 1

    await caller.leave()
    stage.go.set()

    row = await gateway.row()
    assert ending(row) == LEFT
    assert usage(row) == TOTALS
    assert gateway.app[METRICS].registry.get_sample_value(
        "gateway_requests_total",
        {"endpoint": "/v1/chat/completions", "provider": "stage", "status_code": "499"},
    )


async def test_a_provider_that_fails_after_the_client_left_changes_nothing(gateway, stage):
    stage.plain({"error": {"message": "no"}}, stage.go, status=500)
    caller = await arrived(gateway)
    gateway.unheard = 1

    await caller.leave()
    stage.go.set()

    row = await gateway.row()
    assert (ending(row), usage(row)) == (LEFT, NOTHING_KNOWN)


async def test_a_client_that_leaves_while_its_row_is_written_has_it(gateways):
    gateway = await gateways("single:faulty")
    gateway.stage.plain(gateway.stage.completion("swordfish", 3, 4))
    gate = gateway.gate()
    caller = await gateway.call(gateway.body())
    gateway.unheard = 1
    await soon(gate.entered.wait())

    await caller.leave()
    gate.opened.set()

    row = await gateway.row()
    assert (row.status, usage(row)) == ("success", TOTALS)


# --- before the head of a stream


async def test_a_client_that_leaves_before_the_head_of_its_stream_has_a_row_with_totals(
    gateway, stage, noticed
):
    stage.stream(stage.chunk("one"), stage.usage(3, 4), stage.DONE, before_head=stage.go)
    caller = await arrived(gateway, stream=True)
    gateway.unheard = 1

    await caller.leave()
    stage.go.set()

    row = await gateway.row()
    assert (ending(row), usage(row)) == (LEFT, TOTALS)


async def test_a_stream_that_does_not_begin_in_time_is_closed(gateways, looking):
    gateway = await gateways(streams={"after_disconnect_s": 0.05})
    stage = gateway.stage
    stage.stream(stage.DONE, before_head=asyncio.Event())
    caller = await arrived(gateway, stream=True)
    gateway.unheard = 1

    await caller.leave()

    await soon(stage.dropped.wait())
    row = await gateway.row()
    assert (ending(row), usage(row), row.ttft_ms) == (LEFT, NOTHING_KNOWN, None)


async def test_a_provider_that_refuses_the_stream_of_a_client_that_left_changes_nothing(
    gateway, stage, noticed
):
    stage.plain({"error": {"message": "no"}}, stage.go, status=429)
    caller = await arrived(gateway, stream=True)
    gateway.unheard = 1

    await caller.leave()
    stage.go.set()

    assert ending(await gateway.row()) == LEFT


# --- in mid-stream


@pytest.mark.parametrize("strategy", ["memory", "sqlite", "single:memory", "single:sqlite"])
async def test_a_client_that_leaves_in_mid_stream_has_a_row_with_the_providers_totals(
    gateways, noticed, strategy
):
    gateway = await gateways(strategy)
    stage = gateway.stage
    stage.stream(stage.chunk("one"), stage.go, stage.chunk("two"), stage.usage(3, 4), stage.DONE)
    caller = await in_mid_stream(gateway)

    await caller.leave()
    stage.go.set()

    row = await gateway.row()
    assert str(row.id) == caller.headers["x-usage-id"]
    assert (ending(row), usage(row)) == (LEFT, TOTALS)
    assert row.stream and 0 < row.ttft_ms <= row.latency_ms


async def test_a_client_that_reads_nothing_and_leaves_has_a_row_with_totals(gateway, stage, noticed):
    bulk = stage.chunk("swordfish" * 10_000)
    stage.stream(*[bulk] * 100, stage.usage(3, 4), stage.DONE)
    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()

    await caller.leave()

    row = await gateway.row()
    assert (ending(row), usage(row)) == (LEFT, TOTALS)


async def test_a_stream_without_counts_is_estimated_though_its_client_left(gateway, stage):
    stage.stream(stage.chunk("one"), stage.go, stage.chunk("swordfish"), stage.DONE)
    caller = await in_mid_stream(gateway)

    await caller.leave()
    stage.go.set()

    row = await gateway.row()
    assert (ending(row), usage(row)) == (LEFT, ("estimate", 4, 3, 7, None))


async def test_a_leave_is_noticed_in_a_silence_and_closes_the_provider_at_once(gateways, looking):
    gateway = await gateways(streams={"after_disconnect_s": 0})
    stage = gateway.stage
    counts = {"prompt_tokens": 3, "completion_tokens": 1}
    stage.stream(stage.chunk("one", usage=counts), asyncio.Event())
    caller = await in_mid_stream(gateway)

    await caller.leave()

    await soon(stage.dropped.wait())
    row = await gateway.row()
    assert (ending(row), usage(row)) == (LEFT, ("partial", 3, 1, None, Decimal("0.000013000")))


async def test_a_stream_is_read_on_for_its_time_and_no_longer(gateways, looking):
    gateway = await gateways(streams={"after_disconnect_s": 0.05})
    stage = gateway.stage
    stage.stream(stage.chunk("one"), stage.go, stage.chunk("two"), asyncio.Event())
    caller = await in_mid_stream(gateway)

    await caller.leave()
    await soon(gateway.adopted.acquire())
    stage.go.set()

    await soon(stage.dropped.wait())
    row = await gateway.row()
    assert (ending(row), usage(row)) == (LEFT, NOTHING_KNOWN)


async def test_the_time_counts_from_the_leave_though_the_stream_begins_later(gateways, looking, monkeypatch):
    gateway = await gateways()
    stage = gateway.stage
    stage.stream(stage.chunk("one"), stage.usage(3, 4), stage.DONE, before_head=stage.go)
    guards = note_guards(monkeypatch)
    since = note_adoptions(gateway, monkeypatch)
    caller = await arrived(gateway, stream=True)
    gateway.unheard = 1

    await caller.leave()
    await soon(guards[0].noticed.wait())
    stage.go.set()

    assert usage(await gateway.row()) == TOTALS
    assert since == [guards[0].left_at]


async def test_when_all_pumps_are_taken_the_provider_is_closed_at_once(gateways, looking):
    gateway = await gateways(streams={"max_pumps": 1})
    stage = gateway.stage
    stage.stream(stage.chunk("one"), stage.go, stage.usage(3, 4), stage.DONE)
    first, second = await in_mid_stream(gateway), await in_mid_stream(gateway)

    await first.leave()
    await soon(gateway.adopted.acquire())
    assert gateway.metric("gateway_stream_pumps") == 1
    await second.leave()
    await soon(stage.dropped.wait())
    stage.go.set()

    rows = {str(row.id): row for row in await gateway.rows()}
    read_on, closed = rows[first.headers["x-usage-id"]], rows[second.headers["x-usage-id"]]
    assert (ending(read_on), usage(read_on)) == (LEFT, TOTALS)
    assert (ending(closed), usage(closed)) == (LEFT, NOTHING_KNOWN)
    assert gateway.metric("gateway_stream_pumps") == 0


async def test_without_pumps_no_stream_is_read_on(gateways, looking):
    gateway = await gateways(streams={"max_pumps": 0})
    stage = gateway.stage
    stage.stream(stage.chunk("one"), asyncio.Event())
    caller = await in_mid_stream(gateway)

    await caller.leave()

    await soon(stage.dropped.wait())
    assert ending(await gateway.row()) == LEFT


async def test_a_provider_that_cuts_the_stream_of_a_client_that_left_changes_nothing(gateway, stage, noticed):
    stage.stream(stage.chunk("one"), stage.go, stage.chunk("two"), stage.CUT)
    caller = await in_mid_stream(gateway)

    await caller.leave()
    stage.go.set()

    row = await gateway.row()
    assert (ending(row), usage(row)) == (LEFT, NOTHING_KNOWN)


async def test_a_bug_while_a_stream_is_read_on_costs_no_row(gateway, stage, looking, monkeypatch):
    stage.stream(stage.chunk("one"), stage.go, stage.chunk("two"), stage.DONE)
    caller = await in_mid_stream(gateway)
    await caller.leave()
    await soon(gateway.adopted.acquire())

    monkeypatch.setattr("gateway.calls.text_characters", bug)
    stage.go.set()

    assert ending(await gateway.row()) == LEFT
    gateway.bugs = 1


@pytest.mark.parametrize("end", ["done", "error", "cut"])
async def test_a_stream_that_ends_before_the_leave_is_noticed_was_left_all_the_same(
    gateway, stage, monkeypatch, end
):
    monkeypatch.setattr(departure, "LOOK_S", 1000.0)
    ends = {"done": stage.DONE, "error": b'data: {"error": "no"}\n\n', "cut": stage.CUT}
    stage.stream(stage.chunk("one"), stage.go, stage.usage(3, 4), ends[end])
    caller = await in_mid_stream(gateway)

    await caller.leave()
    stage.go.set()

    row = await gateway.row()
    source = "provider" if end == "done" else "partial"
    assert (ending(row), usage(row)) == (LEFT, (source, *TOTALS[1:]))


async def test_a_client_that_leaves_with_the_last_event_takes_nothing_with_it(gateway, stage, noticed):
    stage.stream(stage.chunk("one"), stage.usage(3, 4), stage.DONE)
    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()
    await caller.until(b"[DONE]")

    await caller.leave()

    row = await gateway.row()
    assert (row.status, row.end_reason, row.status_code) == ("success", "complete", 200)
    assert usage(row) == TOTALS


# --- and then the gateway stops


async def test_a_stream_that_is_still_read_on_at_the_end_has_its_row(gateway, stage, looking):
    stage.stream(stage.chunk("one"), asyncio.Event())
    caller = await in_mid_stream(gateway)
    await caller.leave()
    await soon(gateway.adopted.acquire())

    gateway.app[PUMPS].cancel()

    await soon(stage.dropped.wait())
    assert ending(await gateway.row()) == STOPPED


async def test_a_pump_that_is_cancelled_before_its_first_step_leaves_a_row(
    gateway, stage, looking, monkeypatch
):
    stage.stream(stage.chunk("one"), asyncio.Event())
    pumps = gateway.app[PUMPS]
    adopt = pumps.adopt
    monkeypatch.setattr(pumps, "adopt", lambda *args: (adopt(*args), pumps.cancel()))
    caller = await in_mid_stream(gateway)

    await caller.leave()

    await soon(stage.dropped.wait())
    assert ending(await gateway.row()) == STOPPED


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_whose_client_left_and_that_the_stop_ends_has_its_row(gateway, stage, stream):
    stage.plain({}, asyncio.Event())
    caller = await arrived(gateway, stream=stream)
    gateway.unheard = 1
    await caller.leave()

    gateway.app[CALLS].cancel()

    await soon(stage.dropped.wait())
    assert ending(await gateway.row()) == STOPPED


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_whose_client_left_is_forgotten_at_once(gateway, looking, stream):
    """Its body is as large as it likes, and the collector that looks for cycles comes late."""
    stage = gateway.stage
    gc.collect()
    gc.disable()
    try:
        for _ in range(CALLS_LEFT):
            stage.arrived.clear()
            stage.go.clear()
            if stream:
                stage.stream(stage.chunk("swordfish"), stage.go, stage.usage(3, 4), stage.DONE)
            else:
                stage.plain(stage.completion("swordfish", 3, 4), stage.go)
            caller = await arrived(gateway, stream=stream)
            if stream:
                await soon(caller.head())
            else:
                gateway.unheard += 1
            await caller.leave()
            stage.go.set()
            await gateway.settled()
        requests = [each for each in gc.get_objects() if isinstance(each, web.Request)]
        left = sum(PRINCIPAL in each for each in requests)  # the stage's own have none
    finally:
        gc.enable()

    assert left < CALLS_LEFT / 2, "only the last ones, which their connection still knows"
