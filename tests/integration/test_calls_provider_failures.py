"""Calls that the provider fails, in every way it can: what the client is told, and the one row."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

CHAT = "/v1/chat/completions"
PROVIDER_KEY = "sk-of-the-provider-0123"
REFUSAL = {"error": {"message": f"not with {PROVIDER_KEY}", "type": "t", "code": "c", "param": "p"}}
EITHER_WAY = pytest.mark.parametrize("stream", [False, True])


async def error_of(response):
    """The error in an answer that has the OpenAI shape."""
    body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "code", "param"}
    return body["error"]


async def last_event(response):
    """What the last event of a stream says; every event before it is whole."""
    assert (response.status, response.content_type) == (200, "text/event-stream")
    *_, last, rest = (await response.read()).split(b"\n\n")
    assert rest == b""
    return json.loads(last.removeprefix(b"data: "))


def ending(row):
    return row.status, row.end_reason, row.status_code, row.error_code


def usage(row):
    return row.usage_source, row.prompt_tokens, row.completion_tokens, row.total_tokens, row.cost


NOTHING_KNOWN = ("none", None, None, None, None)


# --- before the answer


@EITHER_WAY
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "provider_bad_request", "invalid_request_error"),
        (404, "provider_not_found", "not_found_error"),
        (422, "provider_unprocessable", "invalid_request_error"),
        (429, "provider_rate_limited", "rate_limit_error"),
    ],
)
async def test_what_the_client_can_act_on_is_passed_on(gateway, stage, status, code, kind, stream):
    stage.plain(REFUSAL, status=status, headers={"Retry-After": "7"})

    response = await gateway.chat(stream=stream)

    assert (response.status, response.headers["Retry-After"]) == (status, "7")
    told = {"message": "not with [redacted]", "type": kind, "code": code, "param": None}
    assert await error_of(response) == told
    row = await gateway.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert ending(row) == ("error", "provider_error", status, code)
    assert row.error_message == f"The provider refused the call ({status}).", "it may have quoted the prompt"
    assert usage(row) == NOTHING_KNOWN
    assert (row.stream, row.ttft_ms) == (stream, None)


@EITHER_WAY
@pytest.mark.parametrize("status", [401, 403, 302, 402, 409, 500, 503, 529])
async def test_any_other_refusal_is_a_bad_gateway(gateway, stage, status, stream):
    stage.plain(REFUSAL, status=status)

    response = await gateway.chat(stream=stream)

    assert response.status == 502
    error = await error_of(response)
    assert (error["code"], error["type"]) == ("provider_error", "api_error")
    assert PROVIDER_KEY not in error["message"]
    row = await gateway.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert ending(row) == ("error", "provider_error", 502, "provider_error")
    assert str(status) in row.error_message and "not with" not in row.error_message
    assert len(stage.bodies) == 1, "a call that may have been paid for goes out once"


async def test_an_error_within_a_good_status_is_a_bad_gateway(gateway, stage):
    stage.plain(REFUSAL)

    response = await gateway.chat()

    assert (response.status, (await error_of(response))["code"]) == (502, "provider_error")
    assert ending(await gateway.row()) == ("error", "provider_error", 502, "provider_error")


@EITHER_WAY
async def test_a_provider_that_hangs_is_a_gateway_timeout(gateways, stream):
    gateway = await gateways(timeout_s=0.1)

    response = await gateway.chat(model="fake:m", stream=stream, fake={"hang": True})

    assert response.status == 504
    assert (await error_of(response))["code"] == "provider_timeout"
    row = await gateway.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert ending(row) == ("error", "timeout", 504, "provider_timeout")
    assert usage(row) == NOTHING_KNOWN


@EITHER_WAY
async def test_a_provider_that_is_not_there_is_a_bad_gateway(gateway, stream):
    response = await gateway.chat(model="nobody:m", stream=stream)

    assert response.status == 502
    error = await error_of(response)
    assert error["code"] == "provider_unreachable"
    assert "127.0.0.1" not in error["message"]
    row = await gateway.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert ending(row) == ("error", "provider_error", 502, "provider_unreachable")


@pytest.mark.parametrize("answer", [b"", b"{", b"[]", b'"text"', b"<html>no</html>", b"\xff"])
async def test_an_answer_that_is_no_object_is_a_bad_gateway(gateway, stage, answer):
    stage.plain(answer)

    response = await gateway.chat()

    assert (response.status, (await error_of(response))["code"]) == (502, "provider_malformed")
    row = await gateway.row()
    assert ending(row) == ("error", "provider_error", 502, "provider_malformed")
    assert usage(row) == NOTHING_KNOWN


async def test_a_plain_answer_to_a_stream_is_a_bad_gateway(gateway, stage):
    stage.plain(stage.completion("swordfish", 1, 1))

    response = await gateway.chat(stream=True)

    assert (response.status, (await error_of(response))["code"]) == (502, "provider_malformed")
    assert ending(await gateway.row()) == ("error", "provider_error", 502, "provider_malformed")


async def test_half_an_answer_is_a_bad_gateway(gateway):
    response = await gateway.chat(model="fake:m", fake={"cut_after": 0})

    assert (response.status, (await error_of(response))["code"]) == (502, "provider_unreachable")
    assert ending(await gateway.row()) == ("error", "provider_error", 502, "provider_unreachable")


@pytest.mark.parametrize("path", ["/v1/embeddings"])
async def test_embeddings_that_fail_have_their_row_too(gateway, stage, path):
    stage.plain(REFUSAL, status=429)

    response = await gateway.post({"model": "stage:m", "input": "swordfish"}, path)

    assert response.status == 429
    row = await gateway.row()
    assert row.endpoint == path
    assert ending(row) == ("error", "provider_error", 429, "provider_rate_limited")


async def test_a_failure_is_counted_in_the_metrics_once(gateway, stage):
    stage.plain(REFUSAL, status=429)

    await gateway.chat()

    assert gateway.metric("gateway_requests_total", endpoint=CHAT, provider="stage", status_code="429") == 1
    assert gateway.metric("gateway_requests_total", endpoint=CHAT, provider="", status_code="429") is None


# --- within a stream


async def test_a_cut_stream_ends_with_an_error_event(gateway, stage):
    stage.stream(stage.chunk("swordfish"), stage.CUT)

    response = await gateway.chat(stream=True)

    error = (await last_event(response))["error"]
    assert (error["code"], error["type"]) == ("provider_stream_cut", "api_error")
    assert (await response.read()).startswith(stage.chunk("swordfish"))
    row = await gateway.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert ending(row) == ("error", "provider_error", 200, "provider_stream_cut")
    assert usage(row) == NOTHING_KNOWN
    assert row.ttft_ms is not None


async def test_a_stream_that_only_forgets_its_last_event_is_cut_too(gateway, stage):
    stage.stream(stage.chunk("swordfish"))

    response = await gateway.chat(stream=True)

    assert (await last_event(response))["error"]["code"] == "provider_stream_cut"
    assert ending(await gateway.row()) == ("error", "provider_error", 200, "provider_stream_cut")


async def test_a_stream_that_is_cut_before_its_first_event_has_its_row(gateway, stage):
    stage.stream(stage.CUT)

    response = await gateway.chat(stream=True)

    assert (await last_event(response))["error"]["code"] == "provider_stream_cut"
    row = await gateway.row()
    assert ending(row) == ("error", "provider_error", 200, "provider_stream_cut")
    assert row.ttft_ms is None


async def test_counts_before_a_cut_are_partial_and_priced(gateway, stage):
    counts = [{"prompt_tokens": 3, "completion_tokens": n, "total_tokens": 3 + n} for n in (1, 2)]
    stage.stream(*(stage.chunk("swordfish", usage=each) for each in counts), stage.CUT)

    await gateway.chat(stream=True)

    assert usage(await gateway.row()) == ("partial", 3, 2, 5, Decimal("0.000023000"))


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (
            {"error": {"message": f"{PROVIDER_KEY} is over its quota", "code": 429}},
            "[redacted] is over its quota",
        ),
        ({"error": {"code": 5}}, "The provider's stream ended with an error."),
        ({"error": "overloaded"}, "overloaded"),
    ],
)
@pytest.mark.parametrize("come_together", [False, True])
async def test_an_error_event_ends_the_stream_redacted(gateway, stage, sent, told, come_together):
    failure = f"data: {json.dumps(sent)}\n\n".encode()
    steps = [stage.chunk("swordfish"), failure, stage.chunk("more"), stage.DONE]
    stage.stream(*([b"".join(steps)] if come_together else steps))

    response = await gateway.chat(stream=True)

    first, last, rest = (await response.read()).split(b"\n\n")
    assert (first + b"\n\n", rest) == (steps[0], b"")
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert (error["code"], error["type"]) == ("provider_error", "api_error")
    assert error["message"] == told
    row = await gateway.row()
    assert ending(row) == ("error", "provider_error", 200, "provider_error")
    assert row.error_message == "The provider's stream ended with an error."


async def test_a_silence_within_a_stream_is_a_timeout(gateways):
    gateway = await gateways(timeout_s=1)  # time enough for what comes before the silence
    stage = gateway.stage
    stage.stream(stage.chunk("swordfish"), stage.go)

    response = await gateway.chat(stream=True)

    assert (await last_event(response))["error"]["code"] == "provider_timeout"
    await stage.dropped.wait()
    assert ending(await gateway.row()) == ("error", "timeout", 200, "provider_timeout")


async def test_an_event_beyond_all_measure_ends_the_stream(gateway, stage):
    stage.stream(stage.chunk("swordfish"), b"data: " + b"x" * 2_000_000)

    response = await gateway.chat(stream=True)

    assert (await last_event(response))["error"]["code"] == "provider_malformed"
    assert ending(await gateway.row()) == ("error", "provider_error", 200, "provider_malformed")


async def test_an_event_that_is_no_json_is_the_clients_to_judge(gateway, stage):
    stage.stream(b"data: {oops\n\n", stage.usage(1, 1), stage.DONE)

    response = await gateway.chat(stream=True)

    assert await response.read() == b"data: {oops\n\n" + stage.DONE
    assert (await gateway.row()).status == "success"


# --- counts that are missing


PROMPT = [
    {"role": "system", "content": "swordfish"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "four"}, {"type": "image_url", "image_url": {"url": "x" * 999}}],
    },
]
"""13 characters of text: 4 tokens when a token is 4 characters."""


@EITHER_WAY
@pytest.mark.parametrize("estimate_cost", [False, True])
async def test_without_counts_of_the_provider_the_usage_is_an_estimate(gateways, stream, estimate_cost):
    gateway = await gateways(estimate_cost=estimate_cost)
    stage = gateway.stage
    if stream:
        stage.stream(stage.chunk("swo"), stage.chunk("rdf\n\u00e9"), stage.chunk("ish"), stage.DONE)
    else:
        stage.plain(stage.completion("swordf\n\u00e9ish"))

    response = await gateway.chat(stream=stream, messages=PROMPT)

    assert response.status == 200
    cost = Decimal("0.000034000") if estimate_cost else None
    assert usage(await gateway.row()) == ("estimate", 4, 3, 7, cost)


@pytest.mark.parametrize("given", ["nothing", {}, {"prompt_tokens": -1}, {"prompt_tokens": "7"}, []])
async def test_counts_that_are_no_counts_are_as_good_as_none(gateway, stage, given):
    stage.plain({**stage.completion("swordfish"), "usage": given})

    await gateway.chat(messages=PROMPT)

    assert usage(await gateway.row())[:4] == ("estimate", 4, 3, 7)


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [("swordfish", 3), (["sword", "fish"], 3), ([11, 22, 33, 44, 55], 5), ([[1, 2], [3]], 3), ([None], 0)],
)
async def test_embeddings_without_counts_are_an_estimate(gateways, asked, tokens):
    gateway = await gateways(estimate_cost=True)
    gateway.stage.plain({"object": "list", "data": []})

    await gateway.post({"model": "stage:m", "input": asked}, "/v1/embeddings")

    cost = Decimal(tokens).scaleb(-6)
    assert usage(await gateway.row()) == ("estimate", tokens, 0, tokens, cost)


async def test_some_counts_of_the_provider_are_better_than_an_estimate(gateway, stage):
    stage.plain({**stage.completion("swordfish"), "usage": {"prompt_tokens": 9}})

    await gateway.chat()

    assert usage(await gateway.row()) == ("provider", 9, None, None, None)


async def test_a_cut_stream_is_not_estimated(gateways):
    gateway = await gateways(estimate_cost=True)
    gateway.stage.stream(gateway.stage.chunk("swordfish"), gateway.stage.CUT)

    await gateway.chat(stream=True)

    assert usage(await gateway.row()) == NOTHING_KNOWN
