"""Images and sound with OpenAI's client."""

from __future__ import annotations

import json
from decimal import Decimal

SAID = "say swordfish"
IMAGES, SPEECH, TRANSCRIPTIONS = "/v1/images/generations", "/v1/audio/speech", "/v1/audio/transcriptions"
COUNTED = ("success", 200, "provider", 2, 5, 0, Decimal("0.000052000"))
SOUND = b"RIFF of no sound " * 5
FILE = ("a.wav", b"some words")

# --- images


async def test_images_are_paid_for_by_the_image_when_nothing_else_is_counted(gateway, gpt):
    answer = await gpt.images.generate(
        model="fake:painter", prompt=SAID, n=3, extra_body={"fake": {"no_usage": True}}
    )

    assert len(answer.data) == 3
    assert (await gateway.row()).cost == Decimal("0.120000000")


async def test_images_are_paid_for_by_the_token_too(gpt, told):
    answer = await gpt.images.generate(model="fake:m", prompt=SAID)

    assert answer.usage.total_tokens == 7
    assert await told(IMAGES) == COUNTED


async def test_streamed_images_are_counted(gateway, gpt):
    stream = await gpt.images.generate(
        model="fake:painter", prompt=SAID, stream=True, extra_body={"fake": {"no_usage": True}}
    )

    assert [event.type async for event in stream][-1] == "image_generation.completed"
    assert (await gateway.row()).cost == Decimal("0.040000000")


# --- speech


async def test_speech(gpt, told):
    answer = await gpt.audio.speech.create(model="fake:m", input=SAID, voice="alloy")

    assert answer.content == SOUND
    assert await told(SPEECH) == ("success", 200, "estimate", 4, 0, None, None)


async def test_speech_that_is_read_as_it_comes(gpt, told):
    async with gpt.audio.speech.with_streaming_response.create(
        model="fake:m", input=SAID, voice="alloy"
    ) as answer:
        pieces = [piece async for piece in answer.iter_bytes()]

    assert b"".join(pieces) == SOUND
    assert await told(SPEECH) == ("success", 200, "estimate", 4, 0, None, None)


async def test_speech_in_events_has_its_counts(gateway, gpt, told):
    async with gpt.audio.speech.with_streaming_response.create(
        model="fake:m", input=SAID, voice="alloy", stream_format="sse"
    ) as answer:
        events = await answer.text()

    assert "event: speech.audio.done" in events
    assert await told(SPEECH) == COUNTED
    assert (await gateway.row()).stream


# --- transcriptions


async def test_a_transcription(gpt, told):
    answer = await gpt.audio.transcriptions.create(model="fake:m", file=FILE)

    assert answer.text == "one row for each call"
    assert await told(TRANSCRIPTIONS) == COUNTED


async def test_a_transcription_may_be_a_text_alone(gpt, told):
    answer = await gpt.audio.transcriptions.create(model="fake:m", file=FILE, response_format="text")

    assert answer == "one row for each call"
    assert (await told(TRANSCRIPTIONS))[2] == "estimate"


async def test_a_streamed_transcription(gateway, gpt, told):
    stream = await gpt.audio.transcriptions.create(model="fake:m", file=FILE, stream=True)

    events = [event async for event in stream]

    assert "".join(e.delta for e in events if e.type == "transcript.text.delta") == "one row for each call "
    assert events[-1].type == "transcript.text.done"
    assert await told(TRANSCRIPTIONS) == COUNTED
    assert (await gateway.row()).stream


async def test_a_provider_that_does_not_stream_what_it_is_asked_to_answers_at_once(gpt, stage, told):
    usage = {"type": "tokens", "input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    stage.plain({"text": "swordfish", "usage": usage})

    response = await gpt.audio.transcriptions.with_raw_response.create(
        model="stage:m", file=FILE, extra_body={"stream": "true"}
    )

    assert json.loads(response.text)["text"] == "swordfish"
    counts = ("success", 200, "provider", 3, 4, None, Decimal("0.000043000"))
    assert await told(TRANSCRIPTIONS) == counts


async def test_of_a_form_only_the_model_is_changed(gpt, stage):
    stage.plain({"text": "swordfish"})
    sound = bytes(range(256)) * 1000

    await gpt.audio.transcriptions.create(
        model="stage:m", file=("a.wav", sound), language="en", timestamp_granularities=["word"]
    )

    (sent,) = stage.bodies
    assert b'name="model"\r\n\r\nm\r\n' in sent and sound in sent and b"timestamp_granularities[]" in sent
    assert stage.headers[0]["Content-Type"].startswith("multipart/form-data; boundary=")
