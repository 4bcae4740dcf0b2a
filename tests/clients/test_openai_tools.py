"""Tools with OpenAI's client: asked for, called one by one and several at once, and what they gave."""

from __future__ import annotations

import json

import openai
import pytest
from answering import ToolCall
from pydantic import BaseModel

CHAT = "/v1/chat/completions"
SAID = [{"role": "user", "content": "say swordfish"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "now", "parameters": SCHEMA}}]
OSLO, ROME = ToolCall("t1", "weather", {"city": "Oslo"}), ToolCall("t2", "weather", {"city": "Rome"})

both = pytest.mark.parametrize("model", ["stage:m", "act:m"])


def shown(calls):
    return [(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls]


@both
@pytest.mark.parametrize("calls", [(OSLO,), (OSLO, ROME)], ids=["one", "two"])
@pytest.mark.parametrize("text", ["", "let me look"])
async def test_the_calls_of_an_answer(gpt, says, paid, model, calls, text):
    says(text, *calls)

    answer = await gpt.chat.completions.create(
        model=model, messages=SAID, tools=TOOLS, tool_choice="required"
    )

    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (text or None, "tool_calls")
    assert shown(choice.message.tool_calls) == list(calls)
    await paid(CHAT)


@both
@pytest.mark.parametrize("calls", [(OSLO,), (OSLO, ROME)], ids=["one", "two"])
async def test_the_calls_of_a_stream(gpt, says, paid, model, calls):
    says("let me look", *calls)

    async with gpt.chat.completions.stream(model=model, messages=SAID, tools=TOOLS) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_completion()

    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    assert [(event.index, json.loads(event.arguments)) for event in done] == [
        (index, call.given) for index, call in enumerate(calls)
    ]
    (choice,) = final.choices
    assert (choice.message.content, choice.finish_reason) == ("let me look", "tool_calls")
    assert shown(choice.message.tool_calls) == list(calls)
    await paid(CHAT)


@both
async def test_what_the_tools_gave_is_handed_back(gateway, gpt, says, asked, model):
    says("", OSLO, ROME)
    answer = await gpt.chat.completions.create(model=model, messages=SAID, tools=TOOLS)
    said = answer.choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"{call.function.name} of {index}"}
        for index, call in enumerate(said.tool_calls)
    ]
    says("rain and sun")

    last = await gpt.chat.completions.create(model=model, messages=[*SAID, said, *results], tools=TOOLS)

    assert last.choices[0].message.content == "rain and sun"
    turns = asked()[-1]["messages"]
    if model == "stage:m":
        assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "tool"]
        assert turns[2:] == results
    else:
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert [block["input"] for block in turns[1]["content"]] == [OSLO.given, ROME.given]
        assert [(block["tool_use_id"], block["content"][0]["text"]) for block in turns[2]["content"]] == [
            ("t1", "weather of 0"),
            ("t2", "weather of 1"),
        ]
    assert [row.id for row in await gateway.rows()] == gateway.promised


class weather(BaseModel):
    """now"""

    city: str


@both
async def test_the_calls_of_a_tool_that_is_a_model_of_pydantics(gpt, says, paid, model):
    says("", OSLO)

    answer = await gpt.chat.completions.parse(
        model=model, messages=SAID, tools=[openai.pydantic_function_tool(weather)]
    )

    (call,) = answer.choices[0].message.tool_calls
    assert call.function.parsed_arguments == weather(city="Oslo")
    await paid(CHAT)


async def test_tools_are_put_to_a_provider_of_messages_in_its_words(gpt, says, asked, paid):
    says("", OSLO)

    await gpt.chat.completions.create(
        model="act:m",
        messages=SAID,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "weather"}},
        parallel_tool_calls=False,
    )

    (body,) = asked()
    assert body["tools"] == [{"name": "weather", "description": "now", "input_schema": SCHEMA}]
    assert body["tool_choice"] == {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    await paid(CHAT)
