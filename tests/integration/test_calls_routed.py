"""Calls to named models: what is tried again, what the client sees of it, and which rows tell it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal

import pytest
from aiohttp import web
from troupe import (
    ask,
    begins_with_an_error,
    breaks_off,
    fails_behind_its_first_word,
    hangs,
    hangs_in_its_stream,
    hangs_up,
    in_turn,
    is_good,
    named,
    parted,
    says,
    told,
    well,
)

from gateway.keys import ROUTER

LONG_S = 20.0
SHORT_S = 0.05
FAIR_S = 3.0
"""Enough for an answer that comes at once, on a busy machine too."""
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


# --- what a client sees


@STREAMED
@pytest.mark.parametrize("strategy", ["memory", "single:sqlite", "batch:sqlite"])
async def test_of_a_provider_that_fails_every_third_call_and_one_that_hangs_clients_see_successes_alone(
    cast, strategy, stream
):
    parts = {"a": in_turn(well, well, says(500)), "b": hangs, "m": well}
    models = named("a", "b", fallbacks=["m"], retries=2, attempt_timeout_s=LONG_S if stream else FAIR_S)
    gateway, troupe = await cast(
        parts, models, strategy, first_token_timeout_s=FAIR_S, cooldown={"failures": 4, "cooldown_s": 5}
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


async def test_a_failure_that_comes_with_the_first_events_is_hidden_and_what_they_cost_is_not(cast):
    parts = {"a": fails_behind_its_first_word, "b": well}
    gateway, _ = await cast(parts, named("a", fallbacks=["b"], retries=0))

    response = await ask(gateway, stream=True)

    text = await response.text()
    assert response.status == 200 and "swordfish" in text and "tuna" not in text and "error" not in text
    (call,), (hidden,) = parted(await gateway.rows())
    assert (call.status, call.model, call.cost) == ("success", "b", COST)
    assert (hidden.model, hidden.usage_source, hidden.cost) == ("a", "partial", COST)


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


# --- other endpoints


async def test_every_endpoint_goes_by_names(cast):
    gateway, troupe = await cast({"a": says(500), "b": embeds}, named("a", fallbacks=["b"], retries=0))

    response = await gateway.post({"model": "fast", "input": "swordfish"}, "/v1/embeddings")

    assert response.status == 200
    assert [model for model, _ in troupe.seen] == ["a", "b"]
    assert [row.endpoint for row in await gateway.rows()] == ["/v1/embeddings"] * 2


async def test_what_one_providers_format_cannot_say_is_asked_of_another(cast):
    models = {"fast": {"targets": [{"model": "act:a"}], "fallbacks": ["stage:b"], "retries": 2}}
    gateway, troupe = await cast({"a": well, "b": well}, models)

    assert await is_good(await ask(gateway, n=2))

    assert [model for model, _ in troupe.seen] == ["b"]
    _, (hidden,) = parted(await gateway.rows())
    assert (hidden.provider, hidden.status_code, hidden.error_code) == ("act", 400, "not_translatable")


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
