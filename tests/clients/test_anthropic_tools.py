"""Tools with Anthropic's client: asked for, called one by one and several at once, and what they gave."""

from __future__ import annotations

import pytest
from answering import ToolCall

MESSAGES = "/v1/messages"
SAID = [{"role": "user", "content": "say swordfish"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": "weather", "description": "now", "input_schema": SCHEMA}]
OSLO, ROME = ToolCall("t1", "weather", {"city": "Oslo"}), ToolCall("t2", "weather", {"city": "Rome"})

both = pytest.mark.parametrize("model", ["act:m", "stage:m"])


def shown(content):
    return [(block.id, block.name, block.input) for block in content if block.type == "tool_use"]


def asks(model, **members):
    return {"model": model, "max_tokens": 50, "messages": SAID, "tools": TOOLS, **members}


@both
@pytest.mark.parametrize("calls", [(OSLO,), (OSLO, ROME)], ids=["one", "two"])
@pytest.mark.parametrize("text", ["", "let me look"])
async def test_the_calls_of_an_answer(claude, says, paid, model, calls, text):
    says(text, *calls)

    answer = await claude.messages.create(**asks(model, tool_choice={"type": "any"}))

    assert [block.text for block in answer.content if block.type == "text"] == ([text] if text else [])
    assert (shown(answer.content), answer.stop_reason) == (list(calls), "tool_use")
    await paid(MESSAGES)


@both
@pytest.mark.parametrize("calls", [(OSLO,), (OSLO, ROME)], ids=["one", "two"])
async def test_the_calls_of_a_stream(claude, says, paid, model, calls):
    says("let me look", *calls)

    async with claude.messages.stream(**asks(model)) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_message()

    done = [event.content_block for event in events if event.type == "content_block_stop"]
    assert [block.type for block in done] == ["text", *["tool_use"] * len(calls)]
    pieces = [event.partial_json for event in events if event.type == "input_json"]
    assert "".join(pieces) == "".join(call.arguments for call in calls)
    assert (shown(final.content), final.stop_reason) == (list(calls), "tool_use")
    await paid(MESSAGES)


@both
async def test_what_the_tools_gave_is_handed_back(gateway, claude, says, asked, model):
    says("", OSLO, ROME)
    answer = await claude.messages.create(**asks(model))
    results = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
        {"type": "tool_result", "tool_use_id": "t2", "content": "no such city", "is_error": True},
    ]
    turns = [
        *SAID,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": results},
    ]
    says("rain and nothing")

    last = await claude.messages.create(**asks(model, messages=turns))

    assert last.content[0].text == "rain and nothing"
    sent = asked()[-1]["messages"]
    if model == "act:m":
        assert [block["input"] for block in sent[1]["content"]] == [OSLO.given, ROME.given]
        assert sent[2]["content"] == results
    else:
        assert [call["id"] for call in sent[1]["tool_calls"]] == ["t1", "t2"]
        assert sent[2:] == [
            {"role": "tool", "tool_call_id": "t1", "content": "rain"},
            {"role": "tool", "tool_call_id": "t2", "content": "Error: no such city"},
        ]
    assert [row.id for row in await gateway.rows()] == gateway.promised


async def test_tools_are_put_to_a_provider_of_chat_completions_in_its_words(claude, says, asked, paid):
    says("", OSLO)
    choice = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}

    await claude.messages.create(**asks("stage:m", tool_choice=choice))

    (body,) = asked()
    function = {"name": "weather", "description": "now", "parameters": SCHEMA}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False
    await paid(MESSAGES)
