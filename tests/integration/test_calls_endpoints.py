"""Every endpoint of OpenAI's API: what its clients get, what its provider gets, and the one row."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import pytest
from aiohttp import web

PRICES = {
    "fake:m": {"input_per_million": "1", "output_per_million": "10"},
    "stage:m": {"input_per_million": "1", "output_per_million": "10"},
}
SAID = "say swordfish"


@pytest.fixture
async def gateway(gateways):
    return await gateways(pricing=PRICES)


def told(row):
    return row.status, row.end_reason, row.usage_source, row.prompt_tokens, row.completion_tokens, row.cost


def ended(prompt, completion, cost, source="provider"):
    return "success", "complete", source, prompt, completion, cost and Decimal(cost)


def named(name, **members):
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n".encode()


# --- responses


async def test_a_failed_response_goes_on_as_it_is_and_is_an_error_with_its_counts(gateway, stage):
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    failure = {"status": "failed", "error": {"code": "server_error", "message": "no"}, "usage": usage}
    last = named("response.failed", response=failure, sequence_number=1)
    stage.stream(named("response.created", response={}, sequence_number=0), last)

    response = await gateway.post({"model": "stage:m", "input": SAID, "stream": True}, "/v1/responses")

    assert (await response.read()).endswith(last)
    row = await gateway.row()
    assert (row.status, row.end_reason, row.error_code) == ("error", "provider_error", "provider_error")
    assert (row.prompt_tokens, row.completion_tokens, row.cost) == (3, 4, Decimal("0.000043000"))


async def test_a_response_that_is_not_complete_is_a_success_all_the_same(gateway, stage):
    response = {"status": "incomplete", "usage": {"input_tokens": 3, "output_tokens": 4}}
    stage.stream(named("response.incomplete", response=response))

    await gateway.post({"model": "stage:m", "input": SAID, "stream": True}, "/v1/responses")

    assert told(await gateway.row()) == ended(3, 4, "0.000043000")


async def test_a_response_that_is_cut_ends_with_an_error_event_of_its_kind(gateway, stage):
    stage.stream(named("response.output_text.delta", delta="x", sequence_number=41), stage.CUT)

    response = await gateway.post({"model": "stage:m", "input": SAID, "stream": True}, "/v1/responses")

    name, data = (await response.read()).decode().strip().split("\n\n")[-1].split("\n")
    assert name == "event: error"
    problem = json.loads(data.removeprefix("data: "))
    assert (problem["type"], problem["code"], problem["sequence_number"]) == (
        "error",
        "provider_stream_cut",
        42,
    )
    assert (await gateway.row()).error_code == "provider_stream_cut"


# --- moderations, rankings


async def test_a_ranking_reads_what_it_is_paid_for(gateway):
    body = {"model": "fake:m", "query": SAID, "documents": ["a b", {"text": "c"}], "top_n": 1}

    response = await gateway.post(body, "/v1/rerank")

    assert len((await response.json())["results"]) == 2
    assert told(await gateway.row()) == ended(5, None, "0.000005000")


@pytest.mark.parametrize(
    ("counts", "prompt"),
    [
        ({"usage": {"prompt_tokens": 4, "total_tokens": 4}}, 4),
        ({"meta": {"tokens": {"input_tokens": 6, "output_tokens": 0}}}, 6),
    ],
)
async def test_other_rankings_count_in_other_ways(gateway, stage, counts, prompt):
    stage.plain({"results": [{"document": {"text": "swordfish"}}], **counts})

    await gateway.post({"model": "stage:m", "query": "x", "documents": ["y"]}, "/v1/rerank")

    assert (await gateway.row()).prompt_tokens == prompt


# --- images


async def test_streamed_images_end_with_the_last_of_them(gateway, stage):
    done = named("image_generation.completed", b64_json="x" * 2_000_000)
    stage.stream(named("image_generation.partial_image", b64_json="x"), done, done)

    body = {"model": "stage:m", "prompt": SAID, "n": 2, "stream": True}
    response = await gateway.post(body, "/v1/images/generations")

    assert (await response.read()).count(b"event: image_generation.completed") == 2
    assert (await gateway.row()).status == "success"


async def test_a_provider_that_is_silent_behind_its_last_event_has_said_all(gateways):
    gateway = await gateways(pricing=PRICES, timeout_s=0.1)
    gateway.stage.stream(named("image_generation.completed", b64_json="x"), asyncio.Event())

    body = {"model": "stage:m", "prompt": SAID, "stream": True}
    response = await gateway.post(body, "/v1/images/generations")

    assert b"image_generation.completed" in await response.read()
    assert (await gateway.row()).status == "success"


async def test_images_that_came_before_a_cut_are_passed_on_and_counted(gateway, stage):
    stage.stream(named("image_generation.completed", b64_json="swordfish"), stage.CUT)

    body = {"model": "stage:m", "prompt": SAID, "n": 2, "stream": True}
    response = await gateway.post(body, "/v1/images/generations")

    first, last, _ = (await response.read()).split(b"\n\n")
    assert b"swordfish" in first and b"provider_stream_cut" in last
    assert (await gateway.row()).status == "error"


# --- sound


async def test_speech_is_passed_on_piece_by_piece(gateway, stage):
    async def act(request):
        response = web.StreamResponse(headers={"Content-Type": "audio/mpeg"})
        await response.prepare(request)
        await response.write(b"one")
        await stage.go.wait()
        await response.write(b"two")
        return response

    stage.act = act
    caller = await gateway.call({"model": "stage:m", "input": SAID, "voice": "x"}, "/v1/audio/speech")
    await caller.head()
    await caller.until(b"one")
    stage.go.set()
    await caller.until(b"two\r\n0\r\n\r\n")

    assert caller.headers["content-type"] == "audio/mpeg"
    assert json.loads(stage.bodies[0]) == {"model": "m", "input": SAID, "voice": "x"}
    row = await gateway.row()
    assert told(row) == ended(4, 0, None, "estimate")
    assert (row.stream, row.endpoint) == (False, "/v1/audio/speech")


async def test_speech_that_is_cut_ends_with_its_connection(gateway, stage):
    async def act(request):
        response = web.StreamResponse(headers={"Content-Type": "audio/mpeg"})
        await response.prepare(request)
        await response.write(b"one")
        request.transport.close()
        return response

    stage.act = act
    caller = await gateway.call({"model": "stage:m", "input": SAID, "voice": "x"}, "/v1/audio/speech")
    await caller.head()

    assert not (await caller.reader.read()).endswith(b"0\r\n\r\n")
    row = await gateway.row()
    assert (row.status, row.error_code, row.status_code) == ("error", "provider_stream_cut", 200)


@pytest.mark.parametrize(
    ("data", "content_type", "status", "code"),
    [
        (b"{}", "application/json", 415, "unsupported_media_type"),
        (b"x", "multipart/form-data; boundary=b", 400, "invalid_body"),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 400, "missing_model"),
    ],
)
async def test_what_is_no_form_with_a_model_is_refused(gateway, data, content_type, status, code):
    response = await gateway.post(data, "/v1/audio/transcriptions", **{"Content-Type": content_type})

    assert (response.status, (await response.json())["error"]["code"]) == (status, code)
    assert await gateway.rows() == []


# --- all of them


JSON_BODIES = {
    "/v1/completions": {"prompt": SAID},
    "/v1/responses": {"input": SAID},
    "/v1/moderations": {"input": SAID},
    "/v1/images/generations": {"prompt": SAID},
    "/v1/rerank": {"query": SAID, "documents": ["a"]},
}


@pytest.mark.parametrize("path", JSON_BODIES)
async def test_unknown_members_go_through_untouched_and_so_does_the_answer(gateway, stage, path):
    raw = json.dumps({"model": "stage:m", **JSON_BODIES[path]})[:-1] + ', "x": 1.50,  "y": "\\u00e9"}'
    answer = b'{"some": "thing",  "n": 1.0}'
    stage.plain(answer)

    response = await gateway.post(raw.encode(), path)

    assert await response.read() == answer
    assert stage.bodies[0].decode() == raw.replace("stage:m", "m")
    assert (await gateway.row()).endpoint == path


@pytest.mark.parametrize("path", [*JSON_BODIES, "/v1/audio/speech"])
async def test_a_refusal_of_the_providers_is_passed_on_with_a_row(gateway, path):
    body = {"model": "fake:m", "input": SAID, **JSON_BODIES.get(path, {}), "fake": {"status": 429}}

    response = await gateway.post(body, path)

    assert response.status == 429
    assert (await response.json())["error"]["code"] == "provider_rate_limited"
    assert (await gateway.row()).status_code == 429


@pytest.mark.parametrize("path", ["/v1/moderations", "/v1/rerank"])
async def test_what_is_not_streamed_cannot_be_asked_for_as_a_stream(gateway, path):
    response = await gateway.post({"model": "fake:m", **JSON_BODIES[path], "stream": True}, path)

    assert (response.status, (await response.json())["error"]["code"]) == (400, "invalid_stream")
    assert await gateway.rows() == []
