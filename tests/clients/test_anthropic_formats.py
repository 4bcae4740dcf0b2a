"""JSON, images and documents with Anthropic's client."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

MESSAGES = "/v1/messages"
SAID = [{"role": "user", "content": "say swordfish in JSON"}]
PIXEL = "iVBORw0KGgo="

both = pytest.mark.parametrize("model", ["act:m", "stage:m"])


class City(BaseModel):
    name: str
    souls: int


OSLO = City(name="Oslo", souls=700_000)


@both
async def test_an_object_by_a_schema_is_one_of_pydantics(claude, says, asked, paid, model):
    says(OSLO.model_dump_json())

    answer = await claude.messages.parse(model=model, max_tokens=50, messages=SAID, output_format=City)

    assert answer.parsed_output == OSLO
    (body,) = asked()
    schema = {
        "act:m": lambda: body["output_config"]["format"]["schema"],
        "stage:m": lambda: body["response_format"]["json_schema"]["schema"],
    }[model]()
    assert (schema["properties"].keys(), schema["additionalProperties"]) == ({"name", "souls"}, False)
    await paid(MESSAGES)


@both
async def test_an_object_by_a_schema_in_a_stream(claude, says, paid, model):
    says(OSLO.model_dump_json())

    async with claude.messages.stream(
        model=model, max_tokens=50, messages=SAID, output_format=City
    ) as stream:
        final = await stream.get_final_message()

    assert final.parsed_output == OSLO
    await paid(MESSAGES)


@both
@pytest.mark.parametrize(
    ("source", "url"),
    [
        (
            {"type": "base64", "media_type": "image/png", "data": PIXEL},
            f"data:image/png;base64,{PIXEL}",
        ),
        ({"type": "url", "url": "https://example.org/a.png"}, "https://example.org/a.png"),
    ],
    ids=["data", "url"],
)
@pytest.mark.parametrize("streams", [True, False])
async def test_an_image_is_seen(claude, says, asked, paid, model, source, url, streams):
    says("a pixel")
    content = [{"type": "text", "text": "what is this?"}, {"type": "image", "source": source}]
    members = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": content}]}

    if streams:
        async with claude.messages.stream(**members) as stream:
            assert await stream.get_final_text() == "a pixel"
    else:
        answer = await claude.messages.create(**members)
        assert answer.content[0].text == "a pixel"

    ((turn,),) = (body["messages"] for body in asked())
    translated = [content[0], {"type": "image_url", "image_url": {"url": url}}]
    assert turn == {"role": "user", "content": content if model == "act:m" else translated}
    await paid(MESSAGES)


@both
async def test_a_document_is_read(claude, says, asked, paid, model):
    says("a page")
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
    content = [{"type": "document", "source": source, "title": "a.pdf"}, {"type": "text", "text": "?"}]

    answer = await claude.messages.create(
        model=model, max_tokens=50, messages=[{"role": "user", "content": content}]
    )

    assert answer.content[0].text == "a page"
    ((turn,),) = (body["messages"] for body in asked())
    file = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}
    translated = [{"type": "file", "file": file}, content[1]]
    assert turn["content"] == (content if model == "act:m" else translated)
    await paid(MESSAGES)
