"""Calls to named models that end in the middle or have no room; their money, and who may make them."""

from __future__ import annotations

import asyncio

import pytest
from letting_in import ANNS_KEY, make_api_key, make_user
from troupe import (
    PRICE,
    Troupe,
    ask,
    fails_behind_its_first_word,
    is_good,
    named,
    parted,
    says,
    told,
    well,
)

from backends import User
from gateway.keys import CALLS, SETTLEMENTS, STORE, WRITER

LONG_S = 20.0
STREAMED = pytest.mark.parametrize("stream", [False, True])


# --- ends in the middle


async def in_the_pause(gateway, troupe, **members):
    """A call whose first attempt was absorbed, and whose second one is far away."""
    caller = await gateway.call(gateway.body("fast", **members))
    async with asyncio.timeout(LONG_S):
        await gateway.has_hidden.wait()
    return caller


@STREAMED
async def test_a_client_that_leaves_in_a_pause_ends_its_call_at_once(cast, looking, stream):
    gateway, troupe = await cast({"a": says(429, Retry_After="9")}, named("a", retries=3))
    gateway.unheard = 1
    caller = await in_the_pause(gateway, troupe, stream=stream)

    await caller.leave()

    async with asyncio.timeout(5):
        calls, hidden = parted(await gateway.rows())
    assert told(calls) == [("cancelled", "stage", "a", 499, "client_disconnect")]
    assert told(hidden) == [("absorbed", "stage", "a", 429, "provider_error")]
    assert len(troupe.seen) == 1


@STREAMED
async def test_a_stop_in_a_pause_ends_the_call_at_once(cast, stream):
    gateway, troupe = await cast({"a": says(429, Retry_After="9")}, named("a", retries=3))
    caller = await in_the_pause(gateway, troupe, stream=stream)

    gateway.app[CALLS].cancel()

    async with asyncio.timeout(5):
        await caller.head()
        calls, hidden = parted(await gateway.rows())
    assert caller.status == 503
    assert told(calls) == [("cancelled", "stage", "a", 503, "shutdown")]
    assert len(hidden) == len(troupe.seen) == 1


@STREAMED
async def test_a_client_that_left_during_an_attempt_causes_no_other_one(cast, looking, stream):
    failing = asyncio.Event()

    async def fails_later(stage, request, is_stream):
        await failing.wait()
        return await says(500)(stage, request, is_stream)

    gateway, troupe = await cast({"a": fails_later, "b": well}, named("a", fallbacks=["b"], retries=0))
    gateway.unheard = 1
    caller = await gateway.call(gateway.body("fast", stream=stream))
    async with asyncio.timeout(LONG_S):
        await gateway.stage.arrived.wait()
    await caller.leave()
    failing.set()

    assert told(await gateway.rows()) == [("cancelled", "stage", "a", 499, "client_disconnect")]
    assert troupe.attempts("b") == []


# --- places


async def test_without_one_more_place_the_attempts_outcome_is_the_calls(cast):
    batching = {"max_queue_rows": 1, "on_full": "reject"}
    gateway, troupe = await cast(
        {"a": says(500), "b": well}, named("a", fallbacks=["b"], retries=1), batching=batching
    )

    assert (await ask(gateway)).status == 502

    assert len(troupe.seen) == 1
    assert told(await gateway.rows()) == [("error", "stage", "a", 502, "provider_error")]
    assert gateway.app[WRITER].stats().shed == {}


async def test_where_no_rows_are_kept_calls_are_tried_again_all_the_same(cast):
    gateway, troupe = await cast({"a": says(500), "b": well}, named("a", fallbacks=["b"]), "noop")

    assert await is_good(await ask(gateway))

    assert [model for model, _ in troupe.seen] == ["a", "a", "b"]
    assert gateway.counts.accepted == 0


async def test_a_row_of_a_hidden_attempt_is_as_durable_before_the_answer_as_the_calls_own(cast):
    gateway, _ = await cast(
        {"a": says(500), "b": well}, named("a", fallbacks=["b"], retries=0), "single:faulty"
    )
    gate = gateway.gate()

    asking = asyncio.ensure_future(ask(gateway))
    async with asyncio.timeout(LONG_S):
        await gate.entered.wait()
    done, _ = await asyncio.wait({asking}, timeout=0.1)
    assert not done
    gate.opened.set()

    assert await is_good(await asking)
    assert len(await gateway.rows()) == 2


# --- money, counts


async def test_the_money_is_held_for_the_dearest_target_and_settled_once(cast, budgeted):
    dear = {"input_per_million": "100", "output_per_million": "1000"}
    gateway = await budgeted(
        models=named("a", fallbacks=["b"], retries=0), pricing={"stage:a": PRICE, "stage:b": dear}
    )
    reserved = []

    async def looks(stage, request, is_stream):
        user = await gateway.app[STORE].get(User, "u")
        reserved.append(user.reserved_nano)
        return await says(500)(stage, request, is_stream)

    Troupe(gateway.stage, a=looks, b=well)
    assert await is_good(await ask(gateway, user="u", max_tokens=4))

    assert reserved[0] >= 4 * 1_000_000
    await gateway.settled()
    user = await gateway.app[STORE].get(User, "u")
    rows = await gateway.rows()
    assert (user.spent_nano, user.reserved_nano) == (4_300_000, 0)
    assert sum(row.cost for row in rows if row.cost) * 10**9 == user.spent_nano
    assert gateway.app[SETTLEMENTS] is not None


async def test_what_a_hidden_attempt_cost_is_charged_too(cast, budgeted):
    gateway = await budgeted(
        models=named("a", fallbacks=["b"], retries=0), pricing={"stage:a": PRICE, "stage:b": PRICE}
    )
    Troupe(gateway.stage, a=fails_behind_its_first_word, b=well)

    assert await is_good(await ask(gateway, user="u", max_tokens=4, stream=True))

    await gateway.settled()
    user = await gateway.app[STORE].get(User, "u")
    assert (user.spent_nano, user.reserved_nano) == (2 * 43_000, 0)
    assert sum(row.cost for row in await gateway.rows()) * 10**9 == user.spent_nano


async def test_where_unpriced_models_are_refused_a_name_goes_to_its_priced_ones(cast):
    gateway, troupe = await cast(
        {"a": well, "b": well},
        named("a", "b", retries=1),
        unpriced="refuse",
        pricing={"stage:b": PRICE},
    )

    for _ in range(4):
        assert await is_good(await ask(gateway))

    assert {model for model, _ in troupe.seen} == {"b"}


async def test_a_name_without_any_priced_target_is_refused_with_a_row(cast):
    gateway, troupe = await cast({"a": well}, named("a"), unpriced="refuse", pricing={})

    assert (await ask(gateway)).status == 402

    assert told(await gateway.rows()) == [("rejected", "stage", "a", 402, "rejected")]
    assert troupe.seen == []


async def test_summaries_and_metrics_count_the_call_once(cast):
    gateway, _ = await cast({"a": says(500), "b": well}, named("a", fallbacks=["b"], retries=1))
    await ask(gateway)
    await gateway.settled()

    response = await gateway.client.get("/v1/usage/summary?group_by=model", headers=gateway.headers())

    groups = {each["model"]: each for each in (await response.json())["data"]}
    assert [(name, groups[name]["calls"], groups[name]["errors"]) for name in "ab"] == [
        ("a", 0, 0),
        ("b", 1, 0),
    ]
    labels = {"endpoint": "/v1/chat/completions", "provider": "stage"}
    assert gateway.metric("gateway_requests_total", **labels, status_code="200") == 1
    assert gateway.metric("gateway_requests_total", **labels, status_code="502") is None
    absorbed = {"provider": "stage", "error_code": "provider_error"}
    assert gateway.metric("gateway_absorbed_attempts_total", **absorbed) == 2


# --- keys


async def test_a_key_that_may_use_a_name_may_go_where_it_leads_and_nowhere_else(cast):
    gateway, troupe = await cast({"a": says(500), "b": well}, named("a", fallbacks=["b"], retries=0))
    await gateway.app[STORE].add(make_user())
    await gateway.app[STORE].add(make_api_key(allowed_models=("fast",)))
    headers = {"Authorization": f"Bearer {ANNS_KEY}"}

    assert await is_good(await gateway.post(gateway.body("fast"), **headers))
    refused = await gateway.post(gateway.body("stage:b"), **headers)
    listed = await gateway.client.get("/v1/models", headers=headers)

    assert (refused.status, (await refused.json())["error"]["code"]) == (403, "model_not_allowed")
    assert [each["id"] for each in (await listed.json())["data"]] == ["fast"]
    assert {row.user_id for row in await gateway.rows()} == {"ann"}


async def test_a_key_that_may_use_a_target_may_not_use_the_name(cast):
    gateway, _ = await cast({"a": well}, named("a"))
    await gateway.app[STORE].add(make_user())
    await gateway.app[STORE].add(make_api_key(allowed_models=("stage:*",)))

    response = await gateway.post(gateway.body("fast"), Authorization=f"Bearer {ANNS_KEY}")

    assert (response.status, (await response.json())["error"]["code"]) == (403, "model_not_allowed")
    assert await gateway.rows() == []
