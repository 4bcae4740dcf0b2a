"""Calls to named models: what is tried again, what the client sees of it, and which rows tell it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal

import pytest
from aiohttp import web
from letting_in import ANNS_KEY, make_api_key, make_user
from troupe import (
    Troupe,
    begins_with_an_error,
    breaks_off,
    hangs,
    hangs_in_its_stream,
    hangs_up,
    in_turn,
    says,
    well,
)

from backends import User
from gateway.keys import CALLS, ROUTER, SETTLEMENTS, STORE, WRITER

LONG_S = 20.0
SHORT_S = 0.05
FAIR_S = 0.5
"""Enough for an answer that comes at once."""
PRICE = {"input_per_million": "1", "output_per_million": "10"}
COST = Decimal("0.000043")
STREAMED = pytest.mark.parametrize("stream", [False, True])
PASSING = {
    "a 500": says(500),
    "a 503": says(503, Retry_After="0"),
    "a 429": says(429),
    "a 408": says(408),
    "an error in its answer": begins_with_an_error,
    "no answer": hangs_up,
}


def named(*targets, **members):
    """The settings of one name, ``fast``, before models on the stage."""
    entries = [{"model": f"stage:{each}"} for each in targets]
    fallbacks = [f"stage:{each}" for each in members.pop("fallbacks", ())]
    return {"fast": {"targets": entries, "fallbacks": fallbacks, **members}}


@pytest.fixture
def cast(gateways):
    """Makes a gateway before a troupe whose models are ``a``, ``b`` and so on."""

    async def start(parts, models, strategy="memory", **settings):
        settings = {"pricing": {f"stage:{name}": PRICE for name in parts}, **settings}
        gateway = await gateways(strategy, models=models, **settings)
        return gateway, Troupe(gateway.stage, **parts)

    return start


async def ask(gateway, model="fast", **members):
    return await gateway.post(gateway.body(model, **members))


async def is_good(response):
    text = await response.text()
    return response.status == 200 and "swordfish" in text and "error" not in text


def told(rows):
    return [(row.status, row.provider, row.model, row.status_code, row.end_reason) for row in rows]


def parted(rows):
    """The rows of the calls, and those of the attempts that were hidden."""
    return (
        [row for row in rows if row.status != "absorbed"],
        [row for row in rows if row.status == "absorbed"],
    )


# --- what a client sees


@STREAMED
@pytest.mark.parametrize("strategy", ["memory", "single:sqlite", "batch:sqlite"])
async def test_of_a_provider_that_fails_every_third_call_and_one_that_hangs_clients_see_successes_alone(
    cast, strategy, stream
):
    parts = {"a": in_turn(well, well, says(500)), "b": hangs, "m": well}
    models = named("a", "b", fallbacks=["m"], retries=2, attempt_timeout_s=LONG_S if stream else FAIR_S)
    gateway, troupe = await cast(
        parts, models, strategy, first_token_timeout_s=FAIR_S, cooldown={"failures": 4, "cooldown_s": 0.1}
    )

    answers = await asyncio.gather(*(ask(gateway, stream=stream) for _ in range(12)))

    assert all([await is_good(each) for each in answers])
    calls, hidden = parted(await gateway.rows())
    assert {row.status for row in calls} == {"success"} and len(calls) == 12
    assert {row.route for row in calls + hidden} == {"fast"}
    assert Counter(f"{row.model} {row.request_id}" for row in calls + hidden) == Counter(
        f"{model} {request_id}" for model, request_id in troupe.seen
    ), "one row for every attempt that reached a provider"
    assert {(row.model, row.end_reason, row.status_code) for row in hidden} == {
        ("a", "provider_error", 502),
        ("b", "timeout", 504),
    }
    assert {row.cost for row in calls} == {COST}
    assert {row.cost for row in hidden} == {None}
    assert {str(row.id) for row in calls} == {each.headers["x-usage-id"] for each in answers}


@STREAMED
@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING)
async def test_what_passes_is_tried_elsewhere_and_hidden(cast, trouble, stream):
    gateway, _ = await cast({"a": trouble, "b": well}, named("a", fallbacks=["b"], retries=0))

    assert await is_good(await ask(gateway, stream=stream))

    (call,), (hidden,) = parted(await gateway.rows())
    assert (call.status, call.model, call.route, call.cost) == ("success", "b", "fast", COST)
    assert (hidden.model, hidden.route, hidden.request_id) == ("a", "fast", call.request_id)
    assert hidden.status_code >= 400 and hidden.error_code and hidden.error_message
    assert hidden.usage_source == "none" and hidden.stream is stream
    assert hidden.id > call.id
    assert hidden.latency_ms <= call.latency_ms


@STREAMED
@pytest.mark.parametrize(("status", "sent"), [(400, 400), (401, 502), (403, 502), (404, 404), (422, 422)])
async def test_what_would_fail_again_is_the_clients_at_once(cast, status, sent, stream):
    gateway, troupe = await cast({"a": says(status), "b": well}, named("a", fallbacks=["b"], retries=3))

    response = await ask(gateway, stream=stream)

    assert response.status == sent
    assert troupe.attempts("b") == []
    assert told(await gateway.rows()) == [("error", "stage", "a", sent, "provider_error")]


@STREAMED
async def test_when_every_attempt_fails_the_client_has_the_error_of_the_last(cast, stream):
    parts = {"a": says(500), "b": says(429, Retry_After="7")}
    gateway, _ = await cast(parts, named("a", fallbacks=["b"], retries=1))

    response = await ask(gateway, stream=stream)

    assert (response.status, response.headers["Retry-After"]) == (429, "7")
    assert (await response.json())["error"]["code"] == "provider_rate_limited"
    calls, hidden = parted(await gateway.rows())
    assert told(calls) == [("error", "stage", "b", 429, "provider_error")]
    assert [row.model for row in hidden] == ["a", "a"]


async def test_a_provider_that_nobody_reaches_is_passed_over(cast):
    models = {"fast": {"targets": [{"model": "nobody:m"}], "fallbacks": ["stage:b"], "retries": 0}}
    gateway, _ = await cast({"b": well}, models)

    assert await is_good(await ask(gateway))

    (call,), (hidden,) = parted(await gateway.rows())
    assert (hidden.provider, hidden.error_code) == ("nobody", "provider_unreachable")
    assert (call.provider, call.model) == ("stage", "b")


async def test_a_model_that_the_client_chose_itself_is_tried_once(cast):
    gateway, troupe = await cast({"a": says(500), "b": well}, named("a", fallbacks=["b"], retries=3))

    assert (await ask(gateway, "stage:a")).status == 502

    assert len(troupe.seen) == 1
    assert told(await gateway.rows()) == [("error", "stage", "a", 502, "provider_error")]


async def test_the_provider_gets_its_own_name_for_the_model_and_the_rest_as_it_came(cast):
    gateway, _ = await cast({"a": says(500), "b": well}, named("a", fallbacks=["b"], retries=0))

    await ask(gateway, seed=7, strange=[1])

    bodies = [json.loads(body) for body in gateway.stage.bodies]
    assert [body.pop("model") for body in bodies] == ["a", "b"]
    assert bodies[0] == bodies[1] and bodies[0]["strange"] == [1]


# --- streams


async def test_a_stream_that_does_not_begin_in_time_is_tried_elsewhere(cast):
    gateway, _ = await cast(
        {"a": hangs_in_its_stream, "b": well},
        named("a", fallbacks=["b"], retries=0),
        first_token_timeout_s=SHORT_S,
    )

    assert await is_good(await ask(gateway, stream=True))

    _, (hidden,) = parted(await gateway.rows())
    assert (hidden.model, hidden.end_reason, hidden.status_code) == ("a", "timeout", 504)
    assert hidden.ttft_ms is None


async def test_once_the_client_has_a_byte_nothing_is_tried_again(cast):
    gateway, troupe = await cast({"a": breaks_off, "b": well}, named("a", fallbacks=["b"], retries=3))

    response = await ask(gateway, stream=True)

    text = await response.text()
    assert response.status == 200 and "swordfish" in text and "provider_stream_cut" in text
    assert troupe.attempts("b") == []
    assert told(await gateway.rows()) == [("error", "stage", "a", 200, "provider_error")]


async def test_a_call_without_another_way_has_its_head_before_the_first_event(cast):
    gateway, _ = await cast({"a": hangs_in_its_stream}, named("a", retries=0), first_token_timeout_s=SHORT_S)

    response = await ask(gateway, stream=True)

    assert response.status == 200 and "provider_timeout" in await response.text()
    assert told(await gateway.rows()) == [("error", "stage", "a", 200, "timeout")]


# --- health


async def test_a_target_that_fails_again_and_again_is_left_alone(cast):
    gateway, troupe = await cast(
        {"a": says(500), "b": well}, named("a", "b", retries=1), cooldown={"failures": 2, "cooldown_s": 600}
    )

    for _ in range(12):
        assert await is_good(await ask(gateway))

    assert len(troupe.attempts("a")) == 2
    assert len(parted(await gateway.rows())[1]) == 2


@STREAMED
async def test_no_attempt_is_counted_as_under_way_when_all_are_over(cast, stream):
    parts = {"a": in_turn(says(500), well, hangs_up, says(400)), "b": breaks_off}
    gateway, _ = await cast(parts, named("a", "b", retries=2), cooldown={"failures": 9})

    for _ in range(8):
        await ask(gateway, stream=stream)

    await gateway.settled()
    health = gateway.app[ROUTER].health
    assert [health.in_flight(key) for key in ("stage:a", "stage:b")] == [0, 0]


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


# --- other endpoints


async def test_every_endpoint_goes_by_names(cast):
    gateway, troupe = await cast({"a": says(500), "b": embeds}, named("a", fallbacks=["b"], retries=0))

    response = await gateway.post({"model": "fast", "input": "swordfish"}, "/v1/embeddings")

    assert response.status == 200
    assert [model for model, _ in troupe.seen] == ["a", "b"]
    assert [row.endpoint for row in await gateway.rows()] == ["/v1/embeddings"] * 2


async def embeds(stage, request, is_stream):
    answer = {"object": "list", "data": [], "model": "b", "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    return web.json_response(answer)


async def test_a_name_passes_over_providers_that_have_no_such_endpoint(cast):
    models = {"fast": {"targets": [{"model": "act:a"}, {"model": "stage:b"}], "retries": 3}}
    gateway, troupe = await cast({"a": embeds, "b": embeds}, models)

    for _ in range(4):
        await gateway.post({"model": "fast", "input": "swordfish"}, "/v1/embeddings")

    assert {model for model, _ in troupe.seen} == {"b"}


async def test_a_name_whose_providers_have_no_such_endpoint_is_refused_without_a_row(cast):
    gateway, troupe = await cast({"a": embeds}, {"fast": {"targets": [{"model": "act:a"}]}})

    response = await gateway.post({"model": "fast", "input": "swordfish"}, "/v1/embeddings")

    assert (response.status, (await response.json())["error"]["code"]) == (400, "endpoint_not_offered")
    assert troupe.seen == [] and await gateway.rows() == []


async def test_a_stream_of_messages_that_begins_with_an_error_is_hidden_too(cast):
    models = {"fast": {"targets": [{"model": "act:a"}], "fallbacks": ["claude:m"], "retries": 0}}
    gateway, _ = await cast({"a": overloaded}, models)
    messages = [{"role": "user", "content": "say swordfish"}]
    body = {"model": "fast", "max_tokens": 4, "stream": True, "messages": messages}

    response = await gateway.post(body, "/v1/messages")

    text = await response.text()
    assert response.status == 200 and "message_stop" in text and "overloaded" not in text
    (call,), (hidden,) = parted(await gateway.rows())
    assert (call.status, call.provider, call.usage_source) == ("success", "claude", "provider")
    assert (hidden.provider, hidden.status_code) == ("act", 502)


async def overloaded(stage, request, is_stream):
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}}
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n")
    return response


async def test_tokens_are_counted_by_name(cast):
    models = {"fast": {"targets": [{"model": "stage:b"}, {"model": "act:a"}]}}
    gateway, troupe = await cast({"a": counts, "b": counts}, models)
    body = {"model": "fast", "messages": [{"role": "user", "content": "say swordfish"}]}

    response = await gateway.post(body, "/v1/messages/count_tokens")

    assert (response.status, await response.json()) == (200, {"input_tokens": 3})
    assert [model for model, _ in troupe.seen] == ["a"]


async def counts(stage, request, is_stream):
    return web.json_response({"input_tokens": 3})
