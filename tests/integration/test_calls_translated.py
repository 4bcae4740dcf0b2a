"""Chat completions of an Anthropic provider, and messages of an OpenAI one, with the official clients."""

from __future__ import annotations

import json
import logging
from decimal import Decimal

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
SAID = [{"role": "user", "content": "say swordfish"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
PRICES = {
    name: {"input_per_million": "1", "output_per_million": "10", "cached_input_per_million": "0.1"}
    for name in ("claude:m", "act:m", "fake:m", "stage:m")
}


@pytest.fixture
async def gateway(gateways, monkeypatch):
    for name in ("anthropic", "openai"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)  # they log what they send
    gateway = await gateways(pricing=PRICES)
    gateway.unheard = None  # these clients' answers are not looked at by the fixture
    return gateway


@pytest.fixture
async def gpt(gateway):
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="tg-test", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(gateway):
    async with AsyncAnthropic(base_url=gateway.url, api_key="tg-test", max_retries=0) as client:
        yield client


def named(name, **members):
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n".encode()


def chunk(delta, reason=None, **members):
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    whole = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps({**whole, **members}).encode() + b"\n\n"


def counts(row):
    return row.status, row.usage_source, row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.cost


# --- chat completions of an Anthropic provider


async def test_a_chat_completion_by_messages(gateway, gpt):
    answer = await gpt.chat.completions.create(
        model="claude:m", messages=SAID, max_completion_tokens=7, metadata={"team": "a"}
    )

    assert answer.choices[0].message.content.split()[:2] == ["one", "row"]
    assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("stop", 9)
    row = await gateway.row()
    assert (row.endpoint, row.provider, row.model) == (CHAT, "claude", "m")
    assert counts(row) == ("success", "provider", 2, 7, 0, Decimal("0.000072000"))
    assert gateway.fake_calls()[0]["endpoint"] == MESSAGES


@pytest.mark.parametrize("shows_usage", [True, False])
async def test_a_stream_by_messages(gateway, gpt, shows_usage):
    options = {"stream_options": {"include_usage": True}} if shows_usage else {}
    stream = await gpt.chat.completions.create(
        model="claude:m", messages=SAID, max_tokens=7, stream=True, **options
    )

    chunks = [each async for each in stream]

    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == (
        "one row for each call one row "
    )
    assert len({each.id for each in chunks}) == 1
    assert [each.usage.total_tokens for each in chunks if each.usage] == ([9] if shows_usage else [])
    assert counts(await gateway.row()) == ("success", "provider", 2, 7, 0, Decimal("0.000072000"))


async def test_tools_in_a_stream_by_messages(gateway, gpt, stage):
    usage = {"input_tokens": 10, "cache_read_input_tokens": 30, "output_tokens": 1}
    stage.stream(
        named("message_start", message={"id": "m1", "model": "m", "usage": usage}),
        named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        named("content_block_delta", index=0, delta={"type": "text_delta", "text": "ok"}),
        named("content_block_stop", index=0),
        *[
            event
            for index in (1, 2)
            for event in (
                named(
                    "content_block_start",
                    index=index,
                    content_block={"type": "tool_use", "id": f"t{index}", "name": "f", "input": {}},
                ),
                named(
                    "content_block_delta",
                    index=index,
                    delta={"type": "input_json_delta", "partial_json": '{"a":'},
                ),
                named("ping"),
                named(
                    "content_block_delta",
                    index=index,
                    delta={"type": "input_json_delta", "partial_json": " 1}"},
                ),
                named("content_block_stop", index=index),
            )
        ],
        named("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 40}),
        named("message_stop"),
    )
    tools = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]

    async with gpt.chat.completions.stream(model="act:m", messages=SAID, tools=tools) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()

    message = final.choices[0].message
    assert (message.content, final.choices[0].finish_reason) == ("ok", "tool_calls")
    assert [(call.id, call.function.arguments) for call in message.tool_calls] == [
        ("t1", '{"a": 1}'),
        ("t2", '{"a": 1}'),
    ]
    assert json.loads(stage.bodies[0])["tools"] == [{"name": "f", "input_schema": SCHEMA}]
    assert counts(await gateway.row()) == ("success", "provider", 40, 40, 30, Decimal("0.000413000"))


async def test_a_chat_completion_that_has_no_words_in_messages_is_refused_with_a_row(gateway, gpt):
    with pytest.raises(openai.BadRequestError) as raised:
        await gpt.chat.completions.create(model="claude:m", messages=SAID, n=2)

    assert raised.value.code == "not_translatable"
    row = await gateway.row()
    assert (row.status, row.status_code, row.error_code) == ("error", 400, "not_translatable")
    assert gateway.provider_calls == 0


@pytest.mark.parametrize(
    ("fake", "error"),
    [({"status": 429}, openai.RateLimitError), ({"status": 500}, openai.InternalServerError)],
)
async def test_an_error_of_an_anthropic_provider_is_told_as_openais(gateway, gpt, fake, error):
    with pytest.raises(error) as raised:
        await gpt.chat.completions.create(model="claude:m", messages=SAID, extra_body={"fake": fake})

    assert raised.value.code in ("provider_rate_limited", "provider_error")
    assert (await gateway.row()).status == "error"


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


async def test_a_message_by_chat(gateway, claude):
    answer = await claude.messages.create(model="fake:m", messages=SAID, max_tokens=7, system="be brief")

    assert answer.content[0].text.split()[:2] == ["one", "row"]
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == ("end_turn", 4, 7)
    row = await gateway.row()
    assert (row.endpoint, row.provider) == (MESSAGES, "fake")
    assert counts(row) == ("success", "provider", 4, 7, None, Decimal("0.000074000"))
    assert gateway.fake_calls()[0]["endpoint"] == CHAT


async def test_a_streamed_message_by_chat(gateway, claude):
    async with claude.messages.stream(model="fake:m", messages=SAID, max_tokens=7) as stream:
        said = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()

    assert said == "one row for each call one row "
    assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("end_turn", 2, 7)
    assert counts(await gateway.row()) == ("success", "provider", 2, 7, None, Decimal("0.000072000"))


async def test_tools_in_a_stream_by_chat(gateway, claude, stage):
    usage = {"prompt_tokens": 40, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 30}}

    def call(index, **function):
        return chunk({"tool_calls": [{"index": index, "id": f"t{index}", "function": function}]})

    stage.stream(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "o"}),
        chunk({"content": "k"}),
        call(0, name="f", arguments=""),
        call(0, arguments='{"a":'),
        call(0, arguments=" 1}"),
        call(1, name="f", arguments='{"a": 2}'),
        chunk({}, "tool_calls"),
        chunk({}, choices=[], usage=usage),
        stage.DONE,
    )
    tools = [{"name": "f", "input_schema": SCHEMA}]

    async with claude.messages.stream(model="stage:m", messages=SAID, max_tokens=7, tools=tools) as stream:
        kinds = [event.type async for event in stream if not hasattr(event, "snapshot")]
        final = await stream.get_final_message()

    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert [block.type for block in final.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in final.content[1:]] == [{"a": 1}, {"a": 2}]
    assert (final.stop_reason, final.usage.input_tokens, final.usage.cache_read_input_tokens) == (
        "tool_use",
        10,
        30,
    )
    assert counts(await gateway.row()) == ("success", "provider", 40, 40, 30, Decimal("0.000413000"))


async def test_an_error_of_an_openai_provider_is_told_as_anthropics(gateway, claude, stage):
    stage.plain({"error": {"message": "no"}}, status=429)

    with pytest.raises(anthropic.RateLimitError) as raised:
        await claude.messages.create(model="stage:m", messages=SAID, max_tokens=7)

    assert raised.value.body["error"]["code"] == "provider_rate_limited"


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
