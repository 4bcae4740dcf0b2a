"""Chat completions with OpenAI's client: of a provider of its own format, and of one that speaks messages."""

from __future__ import annotations

import pytest
from answering import COMPLETION, PROMPT

CHAT = "/v1/chat/completions"
SAID = [{"role": "user", "content": "say swordfish"}]
TEXT = "one row for each call"

both = pytest.mark.parametrize("model", ["stage:m", "act:m"])


@both
async def test_an_answer(gpt, says, paid, model):
    says(TEXT)

    answer = await gpt.chat.completions.create(model=model, messages=SAID, max_completion_tokens=50)

    (choice,) = answer.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (TEXT, "assistant", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT, COMPLETION)
    assert answer.usage.total_tokens == PROMPT + COMPLETION
    await paid(CHAT)


@both
async def test_the_head_of_an_answer_names_the_row_and_the_request(gateway, gpt, says, model):
    says(TEXT)

    raw = await gpt.chat.completions.with_raw_response.create(
        model=model, messages=SAID, extra_headers={"x-request-id": "of-the-client"}
    )

    row = await gateway.row()
    assert str(row.id) == raw.headers["x-usage-id"]
    assert row.request_id == raw.request_id == raw.parse()._request_id == "of-the-client"


@both
@pytest.mark.parametrize("shows_usage", [True, False])
async def test_a_stream_shows_its_counts_to_those_who_ask(gpt, says, paid, model, shows_usage):
    says(TEXT)
    options = {"stream_options": {"include_usage": True}} if shows_usage else {}

    stream = await gpt.chat.completions.create(model=model, messages=SAID, stream=True, **options)
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == (
        [PROMPT + COMPLETION] if shows_usage else []
    )
    assert all(chunk.choices for chunk in chunks) is not shows_usage
    await paid(CHAT)


@both
async def test_the_clients_own_way_with_streams(gpt, says, paid, model):
    says(TEXT)

    async with gpt.chat.completions.stream(
        model=model, messages=SAID, stream_options={"include_usage": True}
    ) as stream:
        said = "".join([event.delta async for event in stream if event.type == "content.delta"])
        final = await stream.get_final_completion()

    assert said == final.choices[0].message.content == TEXT
    assert final.usage.total_tokens == PROMPT + COMPLETION
    await paid(CHAT)


@both
async def test_a_stream_that_is_read_with_a_raw_response(gateway, gpt, says, paid, model):
    says(TEXT)

    async with gpt.chat.completions.with_streaming_response.create(
        model=model, messages=SAID, stream=True
    ) as raw:
        lines = [line async for line in raw.iter_lines() if line]

    assert lines[-1] == "data: [DONE]"
    assert raw.headers["x-usage-id"] == str((await gateway.row()).id)
    await paid(CHAT)


@both
async def test_the_counts_of_a_stream_that_is_left_unread_are_known_all_the_same(
    gateway, gpt, says, told, model
):
    says(TEXT)

    stream = await gpt.chat.completions.create(model=model, messages=SAID, stream=True)
    async for _ in stream:
        break
    await stream.close()

    _, _, source, *counts = await told(CHAT)
    assert (source, counts[:2]) == ("provider", [PROMPT, COMPLETION])
