"""Completions, embeddings, moderations and models with OpenAI's client."""

from __future__ import annotations

from decimal import Decimal

import openai
import pytest

COMPLETIONS, EMBEDDINGS = "/v1/completions", "/v1/embeddings"
SAID = "say swordfish"


def of(prompt, completion, cost, source="provider"):
    return "success", 200, source, prompt, completion, None, None if cost is None else Decimal(cost)


# --- completions


async def test_a_completion(gpt, told):
    answer = await gpt.completions.create(model="fake:m", prompt=[SAID, "twice"], max_tokens=7)

    assert answer.choices[0].text == "one row for each call one row"
    assert answer.usage.total_tokens == 10
    assert await told(COMPLETIONS) == of(3, 7, "0.000073000")


@pytest.mark.parametrize("shows_usage", [True, False])
async def test_a_streamed_completion_shows_its_counts_to_those_who_ask(gpt, told, shows_usage):
    options = {"stream_options": {"include_usage": True}} if shows_usage else {}

    stream = await gpt.completions.create(model="fake:m", prompt=SAID, stream=True, **options)
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "one row for each call "
    assert [chunk for chunk in chunks if not chunk.choices] == ([chunks[-1]] if shows_usage else [])
    assert await told(COMPLETIONS) == of(2, 5, "0.000052000")


async def test_a_completion_that_is_cut_is_an_error_of_the_client(gpt, told):
    stream = await gpt.completions.create(
        model="fake:m", prompt=SAID, stream=True, extra_body={"fake": {"cut_after": 2}}
    )
    with pytest.raises(openai.APIError) as cut:
        async for _ in stream:
            pass

    assert cut.value.code == "provider_stream_cut"
    assert (await told(COMPLETIONS))[:3] == ("error", 200, "none")


# --- embeddings


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_embeddings(gpt, gateway, told, encoding):
    """Without an encoding the client asks for base64 by itself, and decodes it."""
    options = {} if encoding is None else {"encoding_format": encoding}

    answer = await gpt.embeddings.create(
        model="fake:m", input=["three small words", "two more"], dimensions=4, **options
    )

    first, second = (each.embedding for each in answer.data)
    if encoding == "base64":
        assert (type(first), type(second)) == (str, str)
    else:
        assert (first, second) == ([0.0, 0.125, 0.25, 0.375], [0.125, 0.25, 0.375, 0.5])
    assert answer.usage.total_tokens == 5
    assert await told(EMBEDDINGS) == of(5, None, "0.000005000")


async def test_embeddings_of_a_provider_of_messages_are_refused_without_a_row(gateway, gpt):
    with pytest.raises(openai.BadRequestError) as refused:
        await gpt.embeddings.create(model="act:m", input=SAID)

    assert refused.value.code == "endpoint_not_offered"
    assert await gateway.rows() == []


# --- moderations


async def test_a_moderation_has_no_counts_and_no_cost(gpt, told):
    answer = await gpt.moderations.create(model="fake:m", input=SAID)

    assert answer.results[0].flagged is False
    assert await told("/v1/moderations") == of(4, 0, None, "estimate")


# --- models


async def test_models_are_listed_and_found_without_a_row(gateway, gpt):
    listed = [model.id async for model in gpt.models.list()]
    found = await gpt.models.retrieve("fake:m")
    with pytest.raises(openai.NotFoundError) as refused:
        await gpt.models.retrieve("fake:nothing")

    assert listed == ["act:m", "claude:m", "fake:m", "fake:painter", "stage:m"]
    assert (found.id, found.owned_by) == ("fake:m", "fake")
    assert refused.value.code == "model_not_found"
    assert (gateway.asking, await gateway.rows()) == (0, [])
