"""The official clients that block, each in a thread of its own."""

from __future__ import annotations

import asyncio
import json

import anthropic
import openai
import pytest
from answering import ToolCall

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
SAID = [{"role": "user", "content": "say swordfish"}]
TEXT = "one row for each call"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
OSLO = ToolCall("t1", "weather", {"city": "Oslo"})

both = pytest.mark.parametrize("model", ["stage:m", "act:m"])


# --- OpenAI's


@both
async def test_a_chat_completion(blocking_gpt, says, paid, model):
    says(TEXT)

    answer = await asyncio.to_thread(blocking_gpt.chat.completions.create, model=model, messages=SAID)

    assert answer.choices[0].message.content == TEXT
    await paid(CHAT)


@both
async def test_a_chat_completion_in_a_stream_with_tools(blocking_gpt, says, paid, model):
    says(TEXT, OSLO)
    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]

    def call():
        with blocking_gpt.chat.completions.stream(model=model, messages=SAID, tools=tools) as stream:
            return stream.get_final_completion().choices[0].message

    message = await asyncio.to_thread(call)

    assert message.content == TEXT
    assert json.loads(message.tool_calls[0].function.arguments) == OSLO.given
    await paid(CHAT)


async def test_a_response_in_a_stream(blocking_gpt, says, paid):
    says(TEXT)

    def call():
        with blocking_gpt.responses.stream(model="stage:m", input="say swordfish") as stream:
            return stream.get_final_response().output_text

    assert await asyncio.to_thread(call) == TEXT
    await paid(RESPONSES)


@both
async def test_an_error_of_openais(gateway, blocking_gpt, model):
    with pytest.raises(openai.RateLimitError) as raised:
        await asyncio.to_thread(
            blocking_gpt.chat.completions.create,
            model={"stage:m": "fake:m", "act:m": "claude:m"}[model],
            messages=SAID,
            extra_body={"fake": {"status": 429}},
        )

    assert raised.value.code == "provider_rate_limited"
    assert (await gateway.row()).status_code == 429


# --- Anthropic's


@both
async def test_a_message(blocking_claude, says, paid, model):
    says(TEXT)

    answer = await asyncio.to_thread(
        blocking_claude.messages.create, model=model, max_tokens=50, messages=SAID
    )

    assert answer.content[0].text == TEXT
    await paid(MESSAGES)


@both
async def test_a_message_in_a_stream_with_tools(blocking_claude, says, paid, model):
    says(TEXT, OSLO)
    members = {"model": model, "max_tokens": 50, "messages": SAID}

    def call():
        tools = [{"name": "weather", "input_schema": SCHEMA}]
        with blocking_claude.messages.stream(**members, tools=tools) as stream:
            return "".join(stream.text_stream), stream.get_final_message()

    said, final = await asyncio.to_thread(call)

    assert (said, final.content[1].input, final.stop_reason) == (TEXT, OSLO.given, "tool_use")
    await paid(MESSAGES)


async def test_an_error_of_anthropics(gateway, blocking_claude):
    with pytest.raises(anthropic.RateLimitError) as raised:
        await asyncio.to_thread(
            blocking_claude.messages.create,
            model="fake:m",
            max_tokens=50,
            messages=SAID,
            extra_body={"fake": {"status": 429}},
        )

    assert raised.value.body["error"]["code"] == "provider_rate_limited"
    assert (await gateway.row()).status_code == 429
