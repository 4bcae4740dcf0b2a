"""Budgets hold however many call at once, and say so in a row."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from spending import COST_NANO, HELD_NANO, LONG_S, NOW, chat, code_of, cost_of, soon, spent

from backends import User, to_millisecond
from gateway.keys import SETTLEMENTS, STORE


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


async def test_embeddings_are_expected_to_cost_their_input_alone(budgeted):
    gateway = await budgeted(2_000)
    counts = {"prompt_tokens": 2, "total_tokens": 2}
    gateway.stage.plain({"object": "list", "data": [], "usage": counts})
    body = {"model": "stage:m", "input": "six or so", "user": "u"}

    assert (await gateway.post(body, "/v1/embeddings")).status == 403
    assert (await gateway.post({**body, "input": "six"}, "/v1/embeddings")).status == 200
    assert await spent(gateway) == 2_000


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
