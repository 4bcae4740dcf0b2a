"""Whatever becomes of a call, what it held is let go and its cost is charged, exactly once."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from spending import COST_NANO, HELD_NANO, LONG_S, account, chat, code_of, cost_of, soon, spent

from backends import StoreUnavailable, User
from gateway.calls import Call
from gateway.keys import CALLS, PRICES, PUMPS, STORE, WRITER

TOKENS_A_MINUTE = 100
USED_TOKENS = 3 + 4


async def answered(gateway):
    assert (await chat(gateway)).status == 200


async def streamed(gateway):
    stage = gateway.stage
    stage.stream(stage.chunk("one"), stage.usage(3, 4), stage.DONE)
    assert (await chat(gateway, stream=True)).status == 200


async def failed(gateway):
    gateway.stage.plain({"error": {"message": "no"}}, status=500)
    assert (await chat(gateway)).status >= 500


async def failed_in_mid_stream(gateway):
    stage = gateway.stage
    stage.stream(stage.chunk("one", usage={"prompt_tokens": 3, "completion_tokens": 4}), stage.CUT)
    assert (await chat(gateway, stream=True)).status == 200


async def unreachable(gateway):
    assert (await chat(gateway, model="nobody:m")).status >= 500


async def arrived(gateway, **members):
    body = gateway.body(user="u", max_tokens=4, **members)
    caller = await gateway.call(body)
    await soon(gateway.stage.arrived.wait())
    return caller


async def left_during_a_plain_call(gateway):
    stage = gateway.stage
    stage.plain(stage.completion("swordfish", 3, 4), stage.go)
    caller = await arrived(gateway)
    await caller.leave()
    stage.go.set()
    gateway.unheard = None


async def left_a_stream_that_is_read_on(gateway):
    stage = gateway.stage
    stage.stream(stage.chunk("one"), stage.go, stage.usage(3, 4), stage.DONE)
    caller = await arrived(gateway, stream=True)
    await caller.head()
    await caller.leave()
    await soon(gateway.adopted.acquire())
    user = await gateway.app[STORE].get(User, "u")
    assert user.reserved_nano == HELD_NANO, "held as long as the provider is at work"
    stage.go.set()


async def left_a_stream_that_nobody_reads_on(gateway):
    gateway.app[PUMPS]._max_pumps = 0
    stage = gateway.stage
    stage.stream(stage.chunk("one", usage={"prompt_tokens": 3, "completion_tokens": 4}), stage.go)
    caller = await arrived(gateway, stream=True)
    await caller.head()
    await caller.until(b"one")
    await caller.leave()
    await soon(stage.dropped.wait())
    await soon(gateway.app[CALLS].ended(LONG_S))


async def stopped_before_the_answer(gateway):
    stage = gateway.stage
    stage.plain({}, asyncio.Event())
    call = asyncio.ensure_future(chat(gateway))
    await soon(stage.arrived.wait())
    gateway.app[CALLS].cancel()
    assert (await soon(call)).status == 503


async def stopped_in_mid_stream(gateway):
    stage = gateway.stage
    counts = {"prompt_tokens": 3, "completion_tokens": 4}
    stage.stream(stage.chunk("one", usage=counts), asyncio.Event())
    caller = await arrived(gateway, stream=True)
    await caller.head()
    await caller.until(b"one")
    gateway.app[CALLS].cancel()
    await soon(caller.reader.read())


async def stopped_while_it_is_read_on(gateway):
    stage = gateway.stage
    stage.stream(stage.chunk("one"), stage.usage(3, 4), asyncio.Event())
    caller = await arrived(gateway, stream=True)
    await caller.head()
    await caller.leave()
    await soon(gateway.adopted.acquire())
    gateway.app[PUMPS].cancel()


async def ended_at_once(gateway):
    stage = gateway.stage
    stage.plain(stage.completion("swordfish", 3, 4), stage.go)
    call = asyncio.ensure_future(chat(gateway))
    await soon(stage.arrived.wait())
    gateway.app[CALLS].end_now()
    stage.go.set()
    await soon(call)


OUTCOMES = [
    answered,
    streamed,
    failed,
    failed_in_mid_stream,
    unreachable,
    left_during_a_plain_call,
    left_a_stream_that_is_read_on,
    left_a_stream_that_nobody_reads_on,
    stopped_before_the_answer,
    stopped_in_mid_stream,
    stopped_while_it_is_read_on,
    ended_at_once,
]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: outcome.__name__)
async def test_every_end_of_a_call_settles_it_at_the_cost_of_its_row(budgeted, looking, outcome):
    gateway = await budgeted()

    await outcome(gateway)

    row = await gateway.row()
    assert await spent(gateway) == cost_of([row])
    is_known = row.usage_source in ("provider", "partial")
    assert cost_of([row]) == (COST_NANO if is_known else 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_of_ours_lets_go_of_the_money(budgeted, monkeypatch, stream):
    def bug(*_, **__):
        raise RuntimeError("a bug of ours")

    gateway = await budgeted()
    gateway.bugs = 1
    monkeypatch.setattr(Call, "see" if stream else "see_answer", bug)
    if stream:
        gateway.stage.stream(gateway.stage.DONE)

    await chat(gateway, stream=stream)

    assert await account(gateway) == (0, 0)


@pytest.mark.parametrize("on_full", ["reject", "block"])
async def test_a_call_without_a_place_lets_go_of_the_money(budgeted, on_full):
    gateway = await budgeted(batching={"max_queue_rows": 1, "on_full": on_full, "max_block_s": LONG_S})
    stage = gateway.stage
    stage.plain(stage.completion("swordfish", 3, 4), stage.go)
    first = asyncio.ensure_future(chat(gateway))
    await soon(stage.arrived.wait())
    second = asyncio.ensure_future(chat(gateway))
    await soon(gateway.asked(2))
    if on_full == "block":
        gateway.app[CALLS].cancel()
        await soon(first)

    response = await soon(second)
    stage.go.set()
    await soon(first)

    assert response.status == 503 and "x-usage-id" not in response.headers
    assert len(await gateway.rows()) == gateway.provider_calls == 1
    assert await spent(gateway) == cost_of(await gateway.rows())


async def test_a_call_that_is_served_without_a_row_is_charged_all_the_same(budgeted):
    gateway = await budgeted(batching={"max_queue_rows": 1, "on_full": "shed"})
    stage = gateway.stage
    stage.plain(stage.completion("swordfish", 3, 4), stage.go)
    first = asyncio.ensure_future(chat(gateway))
    await soon(stage.arrived.wait())
    second = asyncio.ensure_future(chat(gateway))
    await soon(gateway.asked(2))
    stage.go.set()

    assert [(await soon(call)).status for call in (first, second)] == [200, 200]
    assert len(await gateway.rows()) == 1
    assert await spent(gateway) == 2 * COST_NANO


# --- the store in trouble


def break_down(monkeypatch, store, name):
    """``store`` does not answer this question; says when it was asked."""
    asked = asyncio.Event()

    async def fail(*_):
        asked.set()
        raise StoreUnavailable("down")

    monkeypatch.setattr(store, name, fail)
    return asked


async def test_without_a_store_no_budgeted_call_is_made_and_none_has_a_row(budgeted, monkeypatch):
    gateway = await budgeted()
    with monkeypatch.context() as trouble:
        break_down(trouble, gateway.app[STORE], "reserve")
        response = await chat(gateway)

    assert (response.status, await code_of(response)) == (503, "store_unavailable")
    assert response.headers["Retry-After"] == "1" and "x-usage-id" not in response.headers
    assert (gateway.provider_calls, await gateway.rows()) == (0, [])
    assert (await chat(gateway)).status == 200


async def test_a_claim_that_was_held_though_the_answer_was_lost_is_let_go(budgeted, monkeypatch):
    gateway = await budgeted()
    store = gateway.app[STORE]
    reserve = store.reserve

    async def lose_the_answer(claim):
        await reserve(claim)
        raise StoreUnavailable("timeout")

    with monkeypatch.context() as trouble:
        trouble.setattr(store, "reserve", lose_the_answer)
        assert (await chat(gateway)).status == 503

    assert await account(gateway) == (0, 0)


async def test_a_call_is_answered_though_it_cannot_be_settled_and_is_charged_later(budgeted, monkeypatch):
    gateway = await budgeted()
    store = gateway.app[STORE]
    with monkeypatch.context() as trouble:
        asked = break_down(trouble, store, "settle")
        assert (await chat(gateway)).status == 200
        await soon(asked.wait())
        user = await store.get(User, "u")
        assert (user.spent_nano, user.reserved_nano) == (0, HELD_NANO)
        assert gateway.metric("gateway_settlements_waiting") == 1

    assert await spent(gateway) == COST_NANO


async def test_a_stop_while_money_is_being_held_lets_go_of_it(budgeted, monkeypatch):
    gateway = await budgeted()
    store = gateway.app[STORE]
    reserve, entered = store.reserve, asyncio.Event()

    async def hold_for_ever(claim):
        await reserve(claim)
        entered.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(store, "reserve", hold_for_ever)
    call = asyncio.ensure_future(chat(gateway))
    await soon(entered.wait())

    gateway.app[CALLS].cancel()

    response = await soon(call)
    assert (response.status, await code_of(response)) == (503, "draining")
    assert await account(gateway) == (0, 0)


def bug(*_, **__):
    raise RuntimeError("a bug of ours")


def cancelled(*_, **__):
    raise asyncio.CancelledError


async def is_cut(gateway):
    """Whether the call has no answer, as one whose handler was cancelled."""
    try:
        return (await chat(gateway)).status == 500
    except aiohttp.ClientError:
        return True


@pytest.mark.parametrize("fail", [bug, cancelled])
@pytest.mark.parametrize(
    ("holder", "step"), [(STORE, "reserve"), (WRITER, "reserve"), (PRICES, "price_at"), (CALLS, "begin")]
)
async def test_whatever_fails_before_a_call_begins_gives_back_what_it_took(
    budgeted, monkeypatch, holder, step, fail
):
    gateway = await budgeted(limits={"rate_limit_tpm": TOKENS_A_MINUTE})
    gateway.bugs = int(fail is bug)
    with monkeypatch.context() as trouble:
        trouble.setattr(gateway.app[holder], step, fail)
        assert await is_cut(gateway)

    response = await chat(gateway)

    assert response.status == 200
    assert int(response.headers["x-ratelimit-remaining-tokens"]) == TOKENS_A_MINUTE - USED_TOKENS
    assert await account(gateway) == (COST_NANO, 0)
    assert len(await gateway.rows()) == 1
