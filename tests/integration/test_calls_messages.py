"""Anthropic's messages: what the client gets, what the provider gets, and the one row."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from letting_in import make_user

from gateway.keys import STORE

PRICES = {
    name: {"input_per_million": "1", "output_per_million": "10", "cached_input_per_million": "0.1"}
    for name in ("claude:m", "act:m")
}
MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
SAID = [{"role": "user", "content": "say swordfish"}]
KEY_OF_PROVIDER = "sk-of-the-provider-0123"


@pytest.fixture
async def gateway(gateways):
    return await gateways(pricing=PRICES)


def body(model="act:m", **members):
    return {"model": model, "max_tokens": 7, "messages": SAID, **members}


def named(name, **members):
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n".encode()


def start(**usage):
    return named("message_start", message={"id": "m1", "content": [], "usage": usage})


def text(said):
    return named("content_block_delta", index=0, delta={"type": "text_delta", "text": said})


def counts(row):
    return row.usage_source, row.prompt_tokens, row.completion_tokens, row.total_tokens, row.cached_tokens


STOP = named("message_stop")


# --- what is counted


async def test_what_is_written_into_a_cache_is_a_part_of_the_prompt(gateway, stage):
    usage = {"input_tokens": 3, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100}
    stage.plain({"type": "message", "content": [], "usage": {**usage, "output_tokens": 4}})

    await gateway.post(body(), MESSAGES)

    row = await gateway.row()
    assert counts(row) == ("provider", 123, 4, 127, 100)
    assert row.cost == Decimal("0.000073000")


async def test_the_last_counts_of_a_stream_are_the_ones_that_hold(gateway, stage):
    stage.stream(
        start(input_tokens=3, output_tokens=1),
        text("swordfish"),
        named("message_delta", delta={}, usage={"input_tokens": 0, "output_tokens": 9}),
        STOP,
    )

    await gateway.post(body(stream=True), MESSAGES)

    assert counts(await gateway.row()) == ("provider", 3, 9, 12, None)


async def test_every_byte_of_a_stream_is_passed_on(gateway, stage):
    events = [start(input_tokens=3), named("ping"), text("one"), named("message_delta", delta={}), STOP]
    stage.stream(*events)

    response = await gateway.post(body(stream=True), MESSAGES)

    assert await response.read() == b"".join(events)


async def test_a_stream_without_counts_is_estimated_by_its_text(gateway, stage):
    stage.stream(named("message_start", message={}), text("x" * 8), text("x"), STOP)

    await gateway.post(body(stream=True), MESSAGES)

    assert counts(await gateway.row()) == ("estimate", 4, 3, 7, None)


# --- what the provider gets


async def test_the_provider_gets_its_own_key_and_the_clients_version(gateway, stage):
    stage.plain({"type": "message", "content": []})
    raw = json.dumps(body())[:-1] + ', "x": 1.50}'

    await gateway.post(
        raw.encode(), MESSAGES, **{"anthropic-version": "2024-01-01", "anthropic-beta": "a,b", "x-other": "c"}
    )

    (sent,) = stage.headers
    assert (sent["x-api-key"], "Authorization" in sent) == (KEY_OF_PROVIDER, False)
    assert (sent["anthropic-version"], sent["anthropic-beta"]) == ("2024-01-01", "a,b")
    assert "x-other" not in sent
    assert stage.bodies[0].decode() == raw.replace("act:m", "m")


async def test_a_client_that_names_no_version_gets_one(gateway, stage):
    stage.plain({"type": "message", "content": []})

    await gateway.post(body(), MESSAGES)

    assert stage.headers[0]["anthropic-version"] == "2023-06-01"


# --- whom it names


@pytest.mark.parametrize(("name", "user"), [("ann", "ann"), ("somebody", None), (5, None), ("x" * 300, None)])
async def test_a_user_id_counts_for_the_master_key_if_there_is_such_a_user(gateway, stage, name, user):
    stage.plain({"type": "message", "content": []})
    await gateway.app[STORE].add(make_user("ann"))

    response = await gateway.post(body(metadata={"user_id": name}), MESSAGES)

    assert response.status == 200
    assert (await gateway.row()).user_id == user


async def test_a_user_id_binds_nobody_with_a_key_of_its_own(gateway, made, stage):
    stage.plain({"type": "message", "content": []})
    await made("/v1/users", user_id="ann")
    await made("/v1/users", user_id="bob")
    key = await made("/v1/keys", user_id="ann")

    response = await gateway.post(
        body(metadata={"user_id": "bob"}), MESSAGES, Authorization=f"Bearer {key['key']}"
    )

    assert response.status == 200
    assert (await gateway.row()).user_id == "ann"


# --- what goes wrong


async def test_an_error_event_of_the_providers_is_told_in_our_words(gateway, stage):
    error = {"type": "overloaded_error", "message": f"no, {KEY_OF_PROVIDER}"}
    stage.stream(start(input_tokens=3), named("error", error=error))

    response = await gateway.post(body(stream=True), MESSAGES)

    name, data = (await response.read()).decode().strip().split("\n\n")[-1].split("\n")
    assert name == "event: error"
    told = json.loads(data.removeprefix("data: "))["error"]
    assert (told["type"], told["message"]) == ("api_error", "no, [redacted]")
    assert (await gateway.row()).error_code == "provider_error"


@pytest.mark.parametrize(
    ("members", "headers", "status", "kind", "code"),
    [
        ({"messages": []}, {}, 400, "invalid_request_error", "invalid_messages"),
        ({"model": "x:m"}, {}, 404, "not_found_error", "model_not_found"),
        ({}, {"Authorization": "Bearer tg-wrong"}, 401, "authentication_error", "invalid_api_key"),
        ({}, {"Content-Type": "text/plain"}, 415, "invalid_request_error", "unsupported_media_type"),
    ],
)
@pytest.mark.parametrize("path", [MESSAGES, COUNT])
async def test_a_refusal_of_ours_has_anthropics_shape_and_no_row(
    gateway, path, members, headers, status, kind, code
):
    response = await gateway.post(body(**members), path, **headers)

    told = await response.json()
    assert response.status == status
    assert (told["type"], told["error"]["type"], told["error"]["code"]) == ("error", kind, code)
    assert await gateway.rows() == []


@pytest.mark.parametrize(("method", "status"), [("GET", 405), ("PUT", 405)])
async def test_a_wrong_method_has_anthropics_shape_too(gateway, method, status):
    response = await gateway.client.request(method, MESSAGES, headers=gateway.headers())

    assert response.status == status
    assert (await response.json())["type"] == "error"


async def test_what_a_provider_does_not_have_is_refused_without_a_row(gateway):
    response = await gateway.post({"model": "claude:m", "input": "x"}, "/v1/embeddings")

    assert (response.status, (await response.json())["error"]["code"]) == (400, "endpoint_not_offered")
    assert await gateway.rows() == []


async def test_refusals_for_money_have_anthropics_shape_and_a_row(gateways):
    gateway = await gateways(pricing={}, unpriced="refuse")

    response = await gateway.post(body(), MESSAGES)

    assert response.status == 402
    told = (await response.json())["error"]
    assert (told["type"], told["code"]) == ("billing_error", "model_not_priced")
    assert (await gateway.row()).status == "rejected"
