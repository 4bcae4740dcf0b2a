"""Budgets hold however many call at once; whatever becomes of a call, its cost is charged exactly once."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from backends import Budget, PriceEntry, StoreUnavailable, User, nano_usd, to_millisecond
from gateway import departure
from gateway.calls import Call
from gateway.commands.budgets import rebuilt
from gateway.keys import CALLS, PRICES, PUMPS, SETTLEMENTS, SINK, STORE

LONG_S = 20.0
NOW = datetime.now(UTC)
COST_NANO = 3 * 1_000 + 4 * 10_000
"""Of a call with three tokens of prompt and four of completion."""
HELD_NANO = 4 * 1_000 + 4 * 10_000
"""For a call of these tests that asks for four tokens: its prompt is taken for four."""


async def soon(awaitable):
    async with asyncio.timeout(LONG_S):
        return await awaitable


@pytest.fixture
def looking(monkeypatch):
    """The gateway looks often, so that nobody waits for it to notice that a client left."""
    monkeypatch.setattr(departure, "LOOK_S", 0.005)


@pytest.fixture
def budgeted(gateways):
    """Makes gateways with a user ``u`` who may spend ``limit_nano``."""

    async def start(limit_nano=10**9, sink="memory", strategy="cas", **settings):
        gateway = await gateways(sink, budget_strategy=strategy, **settings)
        await gateway.app[STORE].add(Budget(id="b", limit_nano=limit_nano, created_at=NOW))
        await gateway.app[STORE].add(User(id="u", budget_id="b", created_at=NOW))
        gateway.stage.plain(gateway.stage.completion("swordfish", 3, 4))
        return gateway

    return start


async def account(gateway):
    """Spent and held, once every call has been settled."""
    await gateway.settled()
    user = await gateway.app[STORE].get(User, "u")
    return user.spent_nano, user.reserved_nano


async def spent(gateway):
    spent_nano, held = await account(gateway)
    assert held == 0
    return spent_nano


async def spend(gateway, spent_nano):
    """Let the user have spent so much before."""
    user = await gateway.app[STORE].get(User, "u")
    assert await gateway.app[STORE].rebuild_spent(user, spent_nano)


def cost_of(rows):
    return sum(nano_usd(row.cost or Decimal(0)) for row in rows)


async def chat(gateway, **members):
    return await gateway.chat(**{"user": "u", "max_tokens": 4, **members})


async def code_of(response):
    return (await response.json())["error"]["code"]


# --- the limit


@pytest.mark.parametrize("strategy", ["cas", "for_update"])
async def test_of_calls_at_once_only_those_are_made_that_the_budget_has_room_for(budgeted, strategy):
    limit_nano = 10 * HELD_NANO + HELD_NANO - 1
    gateway = await budgeted(limit_nano, strategy=strategy)
    stage = gateway.stage
    stage.plain(stage.completion("swordfish", 3, 4), stage.go)
    calls = [asyncio.ensure_future(chat(gateway)) for _ in range(50)]
    while len(calls) > 10:
        done, waiting = await asyncio.wait(calls, timeout=LONG_S, return_when=asyncio.FIRST_COMPLETED)
        assert {call.result().status for call in done} == {403}
        calls = list(waiting)
    user = await gateway.app[STORE].get(User, "u")
    assert user.reserved_nano == 10 * HELD_NANO

    stage.go.set()
    answers = await soon(asyncio.gather(*calls))

    assert [answer.status for answer in answers] == [200] * 10
    assert gateway.provider_calls == 10
    rows = await gateway.rows()
    assert sorted(row.status for row in rows) == ["rejected"] * 40 + ["success"] * 10
    assert await spent(gateway) == cost_of(rows) == 10 * COST_NANO <= limit_nano
    assert gateway.metric("gateway_budget_refusals_total") == 40
    assert gateway.metric("gateway_settlements_waiting") == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("sink", ["memory", "single:sqlite"])
async def test_a_call_over_budget_is_refused_with_a_row_that_says_so(budgeted, sink, stream):
    gateway = await budgeted(HELD_NANO - 1, sink)

    response = await chat(gateway, stream=stream)

    error = (await response.json())["error"]
    assert (response.status, error["code"], error["type"]) == (403, "budget_exceeded", "permission_error")
    row = await gateway.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert (row.status, row.end_reason, row.status_code) == ("rejected", "rejected", 403)
    assert (row.error_code, row.user_id, row.cost) == ("budget_exceeded", "u", None)
    assert (gateway.provider_calls, await spent(gateway)) == (0, 0)
    labels = {"endpoint": "/v1/chat/completions", "provider": "stage", "status_code": "403"}
    assert gateway.metric("gateway_requests_total", **labels) == 1


async def test_a_call_that_just_fits_is_made(budgeted):
    gateway = await budgeted(HELD_NANO)

    assert (await chat(gateway)).status == 200
    assert (await code_of(await chat(gateway))) == "budget_exceeded"


async def test_a_call_that_does_not_say_how_much_it_wants_is_expected_to_take_the_default(budgeted):
    settings = {"default_output_tokens": 4}
    gateway = await budgeted(HELD_NANO, budgets=settings)
    assert (await chat(gateway, max_tokens=None)).status == 200
    assert (await code_of(await chat(gateway, max_tokens=None))) == "budget_exceeded"


async def test_a_user_without_a_budget_and_nobody_spend_what_they_like(budgeted):
    gateway = await budgeted(0)
    await gateway.app[STORE].add(User(id="free", created_at=NOW))

    assert (await gateway.chat(user="free")).status == 200
    assert (await gateway.chat()).status == 200
    assert await spent(gateway) == 0


async def test_disabled_budgets_stop_nobody(budgeted):
    gateway = await budgeted(0, strategy="disabled")

    assert (await chat(gateway)).status == 200
    assert gateway.app[SETTLEMENTS] is None
    assert await spent(gateway) == 0


async def test_a_user_who_is_blocked_while_a_cache_believes_otherwise_is_refused(budgeted):
    gateway = await budgeted()
    assert (await chat(gateway)).status == 200
    await gateway.app[STORE].update(User, "u", {"blocked": True})

    response = await chat(gateway)

    assert (response.status, await code_of(response)) == (403, "user_blocked")
    assert [row.status for row in await gateway.rows()] == ["success", "rejected"]


async def test_without_rows_the_budget_holds_all_the_same(budgeted):
    gateway = await budgeted(HELD_NANO + COST_NANO, "noop")
    answers = [await chat(gateway) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 403]
    assert await spent(gateway) == 2 * COST_NANO


@pytest.mark.parametrize("sink", ["memory", "single:sqlite"])
async def test_money_is_held_under_the_id_and_the_time_of_the_row(budgeted, monkeypatch, sink):
    gateway = await budgeted(sink=sink)
    store, claims = gateway.app[STORE], []
    reserve = store.reserve

    async def noted(claim):
        claims.append(claim)
        return await reserve(claim)

    monkeypatch.setattr(store, "reserve", noted)
    response = await chat(gateway)

    row, (claim,) = await gateway.row(), claims
    assert str(claim.id) == str(row.id) == response.headers["x-usage-id"]
    assert (claim.user_id, claim.made_at) == ("u", to_millisecond(row.timestamp))
    assert claim.expires_at == claim.made_at + timedelta(seconds=900)


# --- prices


async def test_a_model_without_a_price_is_not_served_if_it_is_not_to_be(budgeted):
    gateway = await budgeted(unpriced="refuse")

    response = await gateway.chat(model="stage:other")

    error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (402, "model_not_priced", "model")
    row = await gateway.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert (row.status, row.end_reason, row.status_code) == ("rejected", "rejected", 402)
    assert gateway.provider_calls == 0


async def test_a_model_without_a_price_costs_a_budget_nothing_while_there_is_any_left(budgeted):
    gateway = await budgeted(10)
    assert (await chat(gateway, model="stage:other")).status == 200
    assert await spent(gateway) == 0
    await spend(gateway, 10)

    response = await chat(gateway, model="stage:other")

    assert (response.status, await code_of(response)) == (403, "budget_exceeded")


async def test_a_call_costs_what_the_store_says_at_its_own_time(budgeted):
    gateway = await budgeted()
    prices = {"input_per_million": Decimal(2), "output_per_million": Decimal(20)}
    for name, at in (("now", NOW - timedelta(hours=1)), ("later", NOW + timedelta(hours=1))):
        entry = PriceEntry(id=name, model="stage:m", effective_at=at, created_at=NOW, **prices)
        await gateway.app[STORE].add(entry)
        prices = {name: 10 * price for name, price in prices.items()}
    await gateway.app[PRICES].refresh()

    assert (await chat(gateway)).status == 200

    assert (await gateway.row()).cost == Decimal("0.000086000")
    assert await spent(gateway) == 2 * COST_NANO


# --- every end


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


# --- the sum of everything


async def any_call(gateway, rng, index):
    stream = rng.random() < 0.5
    trouble = rng.choice([{}, {}, {}, {"status": 500}, {"cut_after": 1}, {"no_usage": True}])
    model = rng.choice(["fake:m", "fake:m", "fake:m", "fake:unpriced", "nobody:m"])
    members = {"model": model, "stream": stream, "max_tokens": rng.randrange(40), "fake": trouble}
    caller = await gateway.call(gateway.body(user=f"u{index % 3}", **members))
    if rng.random() < 0.8:
        await caller.head()
        await soon(caller.reader.readuntil(b"\r\n0\r\n\r\n" if caller.is_chunked else b"}"))
    caller.writer.transport.abort()


@pytest.mark.parametrize("seed", range(2))
async def test_what_users_spent_is_the_sum_of_their_rows_to_the_nano_dollar(budgeted, looking, seed):
    gateway = await budgeted(streams={"after_disconnect_s": 0.05, "max_pumps": 3})
    gateway.unheard = None
    store, rng = gateway.app[STORE], random.Random(seed)
    for index, limit_nano in enumerate((100_000, 1_000_000, 10**12)):
        await store.add(Budget(id=f"b{index}", limit_nano=limit_nano, created_at=NOW))
        await store.add(User(id=f"u{index}", budget_id=f"b{index}", created_at=NOW))
    for _ in range(10):
        await asyncio.gather(*[any_call(gateway, rng, index) for index in range(15)])
    rows = await gateway.rows()

    lines = [line async for line in rebuilt(store, gateway.app[SINK], changes=False)]

    assert [(line.user_id, line.outcome) for line in lines] == [
        (user, "equal") for user in ("u", "u0", "u1", "u2")
    ]
    sums = {line.user_id: line.rows_nano for line in lines}
    assert sum(sums.values()) == cost_of(rows) > 0
    assert {row.status for row in rows} >= {"success", "error", "rejected"}
    assert sums["u0"] <= 100_000


async def test_what_users_spent_is_set_to_the_sum_of_their_rows(budgeted):
    gateway = await budgeted()
    assert (await chat(gateway)).status == 200
    await gateway.settled()
    await spend(gateway, 5)
    store, sink = gateway.app[STORE], gateway.app[SINK]

    async def outcomes(changes):
        return [
            (line.spent_nano, line.rows_nano, line.outcome)
            async for line in rebuilt(store, sink, changes=changes)
        ]

    assert await outcomes(False) == [(5, COST_NANO, "differs")]
    assert await outcomes(True) == [(5, COST_NANO, "done")]
    assert await outcomes(True) == [(COST_NANO, COST_NANO, "equal")]


async def test_an_account_with_calls_under_way_is_not_rebuilt(budgeted):
    gateway = await budgeted()
    assert (await chat(gateway)).status == 200
    await gateway.settled()
    await spend(gateway, 5)
    stage = gateway.stage
    stage.plain(stage.completion("swordfish", 3, 4), stage.go)
    stage.arrived.clear()
    call = asyncio.ensure_future(chat(gateway))
    await soon(stage.arrived.wait())

    (line,) = [line async for line in rebuilt(gateway.app[STORE], gateway.app[SINK], changes=True)]

    assert (line.outcome, line.spent_nano) == ("skipped", 5)
    stage.go.set()
    await soon(call)
