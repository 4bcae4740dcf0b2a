"""Responses with OpenAI's client."""

from __future__ import annotations

import json
from decimal import Decimal

import openai
import pytest
from answering import COMPLETION, PROMPT, ToolCall
from pydantic import BaseModel

RESPONSES = "/v1/responses"
SAID = "say swordfish"
TEXT = "one row for each call"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "name": "weather", "description": "now", "parameters": SCHEMA, "strict": False}]
OSLO, ROME = ToolCall("t1", "weather", {"city": "Oslo"}), ToolCall("t2", "weather", {"city": "Rome"})


class City(BaseModel):
    city: str


def shown(output):
    calls = [item for item in output if item.type == "function_call"]
    return [(call.call_id, call.name, json.loads(call.arguments)) for call in calls]


async def test_a_response(gpt, says, paid):
    says(TEXT)

    answer = await gpt.responses.create(model="stage:m", input=SAID, instructions="be brief")

    assert (answer.output_text, answer.status) == (TEXT, "completed")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (PROMPT, COMPLETION)
    await paid(RESPONSES)


async def test_the_row_of_a_response_tells_what_was_thought_and_whose_it_is(gateway, gpt):
    fake = {"cached_tokens": 1, "reasoning_tokens": 3}

    await gpt.responses.create(
        model="fake:m", input=SAID, max_output_tokens=9, metadata={"team": "a"}, extra_body={"fake": fake}
    )

    row = await gateway.row()
    assert (row.prompt_tokens, row.completion_tokens, row.total_tokens) == (2, 9, 11)
    assert (row.cached_tokens, row.reasoning_tokens, json.loads(row.tags)) == (1, 3, {"team": "a"})
    assert row.cost == Decimal("0.000091100")


async def test_a_stream_of_events(gpt, says, paid):
    says(TEXT)

    stream = await gpt.responses.create(model="stage:m", input=SAID, stream=True)
    events = [event async for event in stream]

    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    await paid(RESPONSES)


async def test_the_clients_own_way_with_streams(gateway, gpt, says, paid):
    says(TEXT)

    async with gpt.responses.stream(model="stage:m", input=SAID) as stream:
        said = "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])
        final = await stream.get_final_response()

    assert said == final.output_text == TEXT
    await paid(RESPONSES)
    row = await gateway.row()
    assert row.stream and row.ttft_ms > 0


async def test_a_stream_without_counts_is_estimated_by_its_text_once(gpt, told):
    stream = await gpt.responses.create(
        model="fake:m", input=SAID, stream=True, extra_body={"fake": {"no_usage": True}}
    )
    async for _ in stream:
        pass

    assert await told(RESPONSES) == ("success", 200, "estimate", 4, 6, None, None)


@pytest.mark.parametrize("calls", [(OSLO,), (OSLO, ROME)], ids=["one", "two"])
@pytest.mark.parametrize("text", ["", "let me look"])
async def test_the_calls_of_a_response(gpt, says, paid, calls, text):
    says(text, *calls)

    answer = await gpt.responses.create(model="stage:m", input=SAID, tools=TOOLS)

    assert (answer.output_text, shown(answer.output)) == (text, list(calls))
    await paid(RESPONSES)


@pytest.mark.parametrize("calls", [(OSLO,), (OSLO, ROME)], ids=["one", "two"])
async def test_the_calls_of_a_stream(gpt, says, paid, calls):
    says("let me look", *calls)

    async with gpt.responses.stream(model="stage:m", input=SAID, tools=TOOLS) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()

    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [json.loads(event.arguments) for event in done] == [call.given for call in calls]
    assert (final.output_text, shown(final.output)) == ("let me look", list(calls))
    await paid(RESPONSES)


async def test_what_the_tools_gave_is_handed_back(gateway, gpt, says, asked):
    says("", OSLO)
    first = await gpt.responses.create(model="stage:m", input=SAID, tools=TOOLS)
    result = {"type": "function_call_output", "call_id": "t1", "output": "rain"}
    says("rain")

    last = await gpt.responses.create(
        model="stage:m",
        input=[{"role": "user", "content": SAID}, *first.output, result],
        tools=TOOLS,
    )

    assert last.output_text == "rain"
    assert asked()[-1]["input"][-1] == result
    assert [row.id for row in await gateway.rows()] == gateway.promised


async def test_an_object_by_a_schema_is_one_of_pydantics(gpt, says, asked, paid):
    says('{"city": "Oslo"}')

    answer = await gpt.responses.parse(model="stage:m", input=SAID, text_format=City)

    assert answer.output_parsed == City(city="Oslo")
    (body,) = asked()
    assert body["text"]["format"]["schema"]["properties"].keys() == {"city"}
    await paid(RESPONSES)


async def test_an_image_is_seen(gpt, says, asked, paid):
    says("a pixel")
    content = [
        {"type": "input_text", "text": "what is this?"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"},
    ]

    answer = await gpt.responses.create(model="stage:m", input=[{"role": "user", "content": content}])

    assert answer.output_text == "a pixel"
    assert asked()[0]["input"][0]["content"] == content
    await paid(RESPONSES)


async def test_a_provider_of_messages_has_none(gateway, gpt):
    with pytest.raises(openai.BadRequestError) as refused:
        await gpt.responses.create(model="act:m", input=SAID)

    assert (refused.value.code, refused.value.param) == ("endpoint_not_offered", "model")
    assert (gateway.provider_calls, await gateway.rows()) == (0, [])
