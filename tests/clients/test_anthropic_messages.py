"""Messages with Anthropic's client: of a provider of its own format, and of one that speaks another."""

from __future__ import annotations

import json

import pytest
from answering import CACHED, COMPLETION, PROMPT

MESSAGES = "/v1/messages"
SAID = [{"role": "user", "content": "say swordfish"}]
TEXT = "one row for each call"

both = pytest.mark.parametrize("model", ["act:m", "stage:m"])


def counted(usage):
    return usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens


COUNTS = (PROMPT - CACHED, CACHED, COMPLETION)


@both
async def test_an_answer(claude, says, paid, model):
    says(TEXT)

    answer = await claude.messages.create(model=model, max_tokens=50, system="be brief", messages=SAID)

    (block,) = answer.content
    assert (answer.type, answer.role, answer.stop_reason) == ("message", "assistant", "end_turn")
    assert (block.text, counted(answer.usage)) == (TEXT, COUNTS)
    await paid(MESSAGES)


async def test_the_row_of_a_message_tells_whom_it_names(gateway, claude, says):
    says(TEXT)

    await claude.messages.create(model="act:m", max_tokens=50, messages=SAID, metadata={"user_id": "x"})

    row = await gateway.row()
    assert (row.provider, row.model, row.stream, row.end_reason) == ("act", "m", False, "complete")
    assert json.loads(row.tags) == {"user_id": "x"}


@both
async def test_the_head_of_an_answer_names_the_row_and_the_request(gateway, claude, says, model):
    says(TEXT)

    raw = await claude.messages.with_raw_response.create(
        model=model, max_tokens=50, messages=SAID, extra_headers={"x-request-id": "of-the-client"}
    )

    row = await gateway.row()
    assert str(row.id) == raw.headers["x-usage-id"]
    assert row.request_id == raw.request_id == (await raw.parse())._request_id == "of-the-client"


@both
async def test_a_stream_of_events(claude, says, paid, model):
    says(TEXT)

    stream = await claude.messages.create(model=model, max_tokens=50, messages=SAID, stream=True)
    events = [event async for event in stream]

    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert "".join(e.delta.text for e in events if e.type == "content_block_delta") == TEXT
    await paid(MESSAGES)


@both
async def test_the_clients_own_way_with_streams(gateway, claude, says, paid, model):
    says(TEXT)

    async with claude.messages.stream(model=model, max_tokens=50, messages=SAID) as stream:
        said = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()

    assert said == final.content[0].text == TEXT
    assert (final.stop_reason, counted(final.usage)) == ("end_turn", COUNTS)
    await paid(MESSAGES)
    row = await gateway.row()
    assert row.stream and row.ttft_ms > 0


@both
async def test_a_stream_of_which_only_the_end_is_asked_for(claude, says, paid, model):
    says(TEXT)

    async with claude.messages.stream(model=model, max_tokens=50, messages=SAID) as stream:
        assert await stream.get_final_text() == TEXT

    await paid(MESSAGES)


@both
async def test_what_is_in_its_beta(claude, says, paid, model):
    says(TEXT)

    answer = await claude.beta.messages.create(
        model=model, max_tokens=50, messages=SAID, betas=["some-beta-2026-01-01"]
    )

    assert answer.content[0].text == TEXT
    await paid(MESSAGES)


@both
async def test_tokens_are_counted_without_a_row(gateway, claude, stage, model):
    stage.plain({"input_tokens": 7})

    counted = await claude.messages.count_tokens(model=model, messages=SAID)

    assert counted.input_tokens == 7
    assert (gateway.asking, await gateway.rows()) == (0, [])
    assert len(stage.bodies) == (model == "act:m")


async def test_an_estimate_of_tokens_reads_all_that_the_model_would(claude):
    async def count(**members):
        return (await claude.messages.count_tokens(model="stage:m", **members)).input_tokens

    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "x" * 400}]}
    tool = {"name": "f", "description": "y" * 400, "input_schema": {"type": "object", "properties": {}}}
    picture = {"type": "base64", "media_type": "image/png", "data": "z" * 4000}

    said = await count(messages=SAID)
    assert 100 < await count(messages=[{"role": "user", "content": [result]}]) < 125
    assert said + 100 < await count(messages=SAID, tools=[tool]) < said + 125
    assert await count(messages=SAID, system="s" * 400) == said + 100
    assert await count(messages=[{"role": "user", "content": [{"type": "image", "source": picture}]}]) < 30
