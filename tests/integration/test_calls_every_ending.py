"""Every way in which a stream ends, in every format: one row each, and a last word in the format's shape."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass

import pytest
from aiohttp import web

from backends.testing.faults import fatal
from gateway import departure
from gateway.keys import CALLS, SINK

LONG_S = 20.0
SAID = [{"role": "user", "content": "say swordfish"}]


async def soon(awaitable):
    async with asyncio.timeout(LONG_S):
        return await awaitable


def data(payload):
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def named(name, **members):
    return f"event: {name}\n".encode() + data({"type": name, **members})


@dataclass(frozen=True)
class Way:
    """One kind of stream. ``told`` are its first events, with counts 3 and 4 in them or in ``rest``, its last
    ones. ``code``: where an error event of the format has its code."""

    path: str
    body: dict
    told: tuple[bytes, ...]
    rest: tuple[bytes, ...]
    code: tuple[str, ...] = ("error", "code")


def _chat(text, **members):
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return data({"id": "c1", "choices": choices, **members})


OLD = {"prompt_tokens": 3, "completion_tokens": 4}
NEW = {"input_tokens": 3, "output_tokens": 4}
MESSAGES = (
    named("message_start", message={"id": "m1", "usage": {"input_tokens": 3, "output_tokens": 1}}),
    named("content_block_delta", index=0, delta={"type": "text_delta", "text": "one"}),
)
MESSAGES_END = (named("message_delta", delta={}, usage={"output_tokens": 4}), named("message_stop"))
CHAT = (_chat("one"),)
CHAT_END = (data({"id": "c1", "choices": [], "usage": OLD}), b"data: [DONE]\n\n")
WAYS = {
    "chat": Way("/v1/chat/completions", {"model": "stage:m", "messages": SAID}, CHAT, CHAT_END),
    "completions": Way(
        "/v1/completions",
        {"model": "stage:m", "prompt": "x"},
        (data({"choices": [{"text": "one"}]}),),
        (data({"choices": [], "usage": OLD}), b"data: [DONE]\n\n"),
    ),
    "responses": Way(
        "/v1/responses",
        {"model": "stage:m", "input": "x"},
        (named("response.output_text.delta", delta="one", sequence_number=1),),
        (named("response.completed", response={"usage": NEW}, sequence_number=2),),
        ("code",),
    ),
    "messages": Way(
        "/v1/messages", {"model": "act:m", "max_tokens": 9, "messages": SAID}, MESSAGES, MESSAGES_END
    ),
    "speech": Way(
        "/v1/audio/speech",
        {"model": "stage:m", "input": "x", "stream_format": "sse"},
        (named("speech.audio.delta", audio="one"),),
        (named("speech.audio.done", usage=NEW),),
    ),
    "images": Way(
        "/v1/images/generations",
        {"model": "stage:m", "prompt": "x"},
        (named("image_generation.partial_image", b64_json="one"),),
        (named("image_generation.completed", usage=NEW),),
    ),
    "chat by messages": Way(
        "/v1/chat/completions", {"model": "act:m", "messages": SAID}, MESSAGES, MESSAGES_END
    ),
    "messages by chat": Way(
        "/v1/messages", {"model": "stage:m", "max_tokens": 9, "messages": SAID}, CHAT, CHAT_END
    ),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def asked(way):
    return {**way.body, "stream": True}


def last_code(way, text):
    """The code in the last event of a stream, which is whole and nothing else."""
    *_, last, rest = text.split(b"\n\n")
    assert rest == b""
    told = json.loads(last.split(b"data: ")[1])
    for name in way.code:
        told = told[name]
    return told


def counts(row):
    return row.prompt_tokens, row.completion_tokens


@every_way
async def test_a_stream_that_is_complete(gateway, stage, way):
    stage.stream(*way.told, *way.rest)

    response = await gateway.post(asked(way), way.path)

    assert b"one" in await response.read()
    row = await gateway.row()
    assert (row.status, row.end_reason, row.status_code) == ("success", "complete", 200)
    assert (row.endpoint, row.stream, row.usage_source) == (way.path, True, "provider")
    assert counts(row) == (3, 4)


@every_way
async def test_a_stream_whose_events_come_together(gateway, stage, way):
    stage.stream(*way.told, *way.rest)
    each = await (await gateway.post(asked(way), way.path)).read()
    stage.stream(b"".join((*way.told, *way.rest)))

    together = await (await gateway.post(asked(way), way.path)).read()

    assert _unnamed(together) == _unnamed(each)
    one, other = await gateway.rows()
    assert (one.end_reason, counts(one)) == (other.end_reason, counts(other)) == ("complete", (3, 4))


def _unnamed(told):
    """Without the names and times that a translation makes up anew for each stream."""
    return re.sub(rb'"(id|created)": ("[^"]*"|[0-9]+)', b"", told)


@every_way
async def test_a_stream_that_its_provider_cuts(gateway, stage, way):
    stage.stream(*way.told, stage.CUT)

    response = await gateway.post(asked(way), way.path)

    assert last_code(way, await response.read()) == "provider_stream_cut"
    row = await gateway.row()
    assert (row.status, row.end_reason, row.status_code) == ("error", "provider_error", 200)


@every_way
async def test_a_stream_whose_client_leaves(gateway, stage, way, monkeypatch):
    monkeypatch.setattr(departure, "LOOK_S", 0.005)
    stage.stream(*way.told, stage.go, *way.rest)
    caller = await gateway.call(asked(way), way.path)
    await caller.head()
    await caller.until(b"one")

    await caller.leave()
    await soon(gateway.adopted.acquire())
    stage.go.set()

    row = await gateway.row()
    assert (row.status, row.end_reason, row.status_code) == ("cancelled", "client_disconnect", 499)
    assert counts(row) == (3, 4)


@every_way
async def test_a_stream_within_which_the_gateway_stops(gateway, stage, way):
    stage.stream(*way.told, asyncio.Event())
    caller = await gateway.call(asked(way), way.path)
    await caller.head()
    await caller.until(b"one")

    gateway.app[CALLS].cancel()

    rest = await soon(caller.reader.read())
    assert rest.endswith(b"\r\n0\r\n\r\n"), "the message is whole"
    assert b'"code": "shutting_down"' in rest
    row = await gateway.row()
    assert (row.status, row.end_reason, row.status_code) == ("cancelled", "shutdown", 200)


@every_way
async def test_a_stream_whose_row_is_not_stored(gateways, way):
    gateway = await gateways("single:faulty")
    gateway.app[SINK].always = fatal()
    gateway.unstored = gateway.broken = 1
    gateway.stage.stream(*way.told, *way.rest)

    response = await gateway.post(asked(way), way.path)

    assert last_code(way, await response.read()) == "usage_not_durable"


async def test_a_message_whose_row_is_not_stored(gateways):
    gateway = await gateways("single:faulty")
    gateway.app[SINK].always = fatal()
    gateway.unstored = 1
    gateway.stage.plain({"type": "message", "content": []})

    response = await gateway.post({**WAYS["messages"].body}, "/v1/messages")

    told = await response.json()
    assert (response.status, told["type"], told["error"]["code"]) == (503, "error", "usage_not_durable")


# --- a body that is no stream of events has no place for a last word


@pytest.fixture
def speaking(stage):
    """The stage says one piece, and waits."""

    async def act(request):
        response = web.StreamResponse(headers={"Content-Type": "audio/mpeg"})
        await response.prepare(request)
        await response.write(b"one")
        await stage.go.wait()
        return response

    stage.act = act


async def caller_of_speech(gateway):
    caller = await gateway.call({"model": "stage:m", "input": "x", "voice": "y"}, "/v1/audio/speech")
    await caller.head()
    await caller.until(b"one")
    return caller


async def test_speech_within_which_the_gateway_stops_is_cut(gateway, speaking):
    caller = await caller_of_speech(gateway)

    gateway.app[CALLS].cancel()

    assert not (await soon(caller.reader.read())).endswith(b"0\r\n\r\n")
    row = await gateway.row()
    assert (row.status, row.end_reason) == ("cancelled", "shutdown")


async def test_speech_whose_client_leaves_has_its_row(gateway, stage, speaking, monkeypatch):
    monkeypatch.setattr(departure, "LOOK_S", 0.005)
    caller = await caller_of_speech(gateway)

    await caller.leave()
    await soon(gateway.adopted.acquire())
    stage.go.set()

    row = await gateway.row()
    assert (row.status, row.end_reason) == ("cancelled", "client_disconnect")


async def test_a_count_within_which_the_gateway_stops_is_refused_in_anthropics_shape(gateway, stage):
    stage.plain({}, asyncio.Event())
    body = {"model": "act:m", "messages": SAID}
    count = asyncio.ensure_future(gateway.post(body, "/v1/messages/count_tokens"))
    await soon(stage.arrived.wait())

    gateway.app[CALLS].cancel()

    response = await soon(count)
    told = await response.json()
    assert (response.status, told["type"], told["error"]["code"]) == (503, "error", "draining")
    assert await gateway.rows() == []
