"""Chat completions of an Anthropic provider, and messages of an OpenAI one, and the one row."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
SAID = [{"role": "user", "content": "say swordfish"}]
PRICES = {
    name: {"input_per_million": "1", "output_per_million": "10", "cached_input_per_million": "0.1"}
    for name in ("act:m", "stage:m")
}


@pytest.fixture
async def gateway(gateways):
    return await gateways(pricing=PRICES)


def named(name, **members):
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n".encode()


def chunk(delta, reason=None, **members):
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    whole = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps({**whole, **members}).encode() + b"\n\n"


def counts(row):
    return row.status, row.usage_source, row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.cost


# --- chat completions of an Anthropic provider


async def test_a_stream_by_messages_that_is_cut_ends_as_a_chat_completion_does(gateway, stage):
    stage.stream(
        named("message_start", message={"id": "m1", "usage": {"input_tokens": 3, "output_tokens": 1}}),
        stage.CUT,
    )

    response = await gateway.post(gateway.body("act:m", stream=True))

    last = (await response.read()).decode().strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "provider_stream_cut"
    assert counts(await gateway.row()) == ("error", "partial", 3, 1, None, Decimal("0.000013000"))


# --- messages of an OpenAI provider


async def test_a_stream_by_chat_that_is_cut_ends_as_messages_do_and_keeps_its_counts(gateway, stage):
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    stage.stream(chunk({"content": "one"}), chunk({}, choices=[], usage=usage), stage.CUT)

    body = {"model": "stage:m", "max_tokens": 9, "messages": SAID, "stream": True}
    response = await gateway.post(body, MESSAGES)

    name, data = (await response.read()).decode().strip().split("\n\n")[-1].split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["code"] == "provider_stream_cut"
    assert counts(await gateway.row()) == ("error", "partial", 3, 4, None, Decimal("0.000043000"))


async def test_a_translated_stream_without_counts_is_estimated_by_its_text(gateway, stage):
    stage.stream(chunk({"content": "x" * 8}), chunk({}, "stop"), stage.DONE)

    await gateway.post({"model": "stage:m", "max_tokens": 9, "messages": SAID, "stream": True}, MESSAGES)

    assert counts(await gateway.row())[:4] == ("success", "estimate", 4, 2)


async def test_no_depth_of_a_body_is_a_bug_of_ours(gateway, stage):
    stage.plain({"type": "message", "content": []})
    statuses = set()
    for depth in (1, 300, 900, 950, 980, 990, 1000, 3000, 100_000):
        deep = b"[" * depth + b"]" * depth
        body = json.dumps({"model": "act:m", "messages": SAID})[:-1].encode() + b', "x": ' + deep + b"}"
        statuses.add((await gateway.post(body, CHAT)).status)

    assert statuses == {200, 400}
