"""JSON and images with OpenAI's client."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

CHAT = "/v1/chat/completions"
SAID = [{"role": "user", "content": "say swordfish in JSON"}]
PIXEL = "iVBORw0KGgo="

both = pytest.mark.parametrize("model", ["stage:m", "act:m"])


class City(BaseModel):
    name: str
    souls: int


OSLO = City(name="Oslo", souls=700_000)

# --- JSON


@both
async def test_an_object_of_any_shape(gpt, says, paid, model):
    says(OSLO.model_dump_json())

    answer = await gpt.chat.completions.create(
        model=model, messages=SAID, response_format={"type": "json_object"}
    )

    assert json.loads(answer.choices[0].message.content) == OSLO.model_dump()
    await paid(CHAT)


async def test_an_object_of_any_shape_is_asked_for_in_words_of_a_provider_that_has_no_switch(
    gpt, says, asked, paid
):
    says("{}")
    system = {"role": "system", "content": "be brief"}

    await gpt.chat.completions.create(
        model="act:m", messages=[system, *SAID], response_format={"type": "json_object"}
    )

    (body,) = asked()
    first, last = body["system"]
    assert first == {"type": "text", "text": "be brief"}
    assert "JSON object" in last["text"]
    assert "response_format" not in body
    await paid(CHAT)


@both
async def test_an_object_by_a_schema_is_one_of_pydantics(gpt, says, asked, paid, model):
    says(OSLO.model_dump_json())

    answer = await gpt.chat.completions.parse(model=model, messages=SAID, response_format=City)

    assert answer.choices[0].message.parsed == OSLO
    (body,) = asked()
    schema = {
        "stage:m": lambda: body["response_format"]["json_schema"]["schema"],
        "act:m": lambda: body["output_config"]["format"]["schema"],
    }[model]()
    assert (schema["properties"].keys(), schema["additionalProperties"]) == ({"name", "souls"}, False)
    await paid(CHAT)


@both
async def test_an_object_by_a_schema_in_a_stream(gpt, says, paid, model):
    says(OSLO.model_dump_json())

    async with gpt.chat.completions.stream(model=model, messages=SAID, response_format=City) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()

    assert final.choices[0].message.parsed == OSLO
    await paid(CHAT)


# --- images


@both
@pytest.mark.parametrize(
    ("url", "source"),
    [
        (
            f"data:image/png;base64,{PIXEL}",
            {"type": "base64", "media_type": "image/png", "data": PIXEL},
        ),
        ("https://example.org/a.png", {"type": "url", "url": "https://example.org/a.png"}),
    ],
    ids=["data", "url"],
)
@pytest.mark.parametrize("streams", [True, False])
async def test_an_image_is_seen(gpt, says, asked, paid, model, url, source, streams):
    says("a pixel")
    content = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]
    messages = [{"role": "user", "content": content}]

    answer = await gpt.chat.completions.create(model=model, messages=messages, stream=streams)
    if streams:
        assert "".join([c.choices[0].delta.content or "" async for c in answer if c.choices]) == "a pixel"
    else:
        assert answer.choices[0].message.content == "a pixel"

    ((turn,),) = (body["messages"] for body in asked())
    translated = [content[0], {"type": "image", "source": source}]
    assert turn == {"role": "user", "content": content if model == "stage:m" else translated}
    await paid(CHAT)
