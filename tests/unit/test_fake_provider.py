"""The fake provider answers as an OpenAI-compatible one does, fails on demand and keeps count."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from fake_plan import ERRORS

PROGRAM = Path(__file__).parents[2] / "load" / "fake_provider.py"
CHAT = "/v1/chat/completions"
MESSAGES = [
    {"role": "system", "content": "two words"},
    {"role": "user", "content": [{"type": "text", "text": "and three more"}, {"type": "image_url"}]},
]
LONG_S = 60

Start = Callable[..., Awaitable[TestClient[web.Request, web.Application]]]


def load_program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_provider_under_test", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


program = load_program()


@pytest.fixture
def start(aiohttp_client: Callable[..., Awaitable[TestClient[web.Request, web.Application]]]) -> Start:
    async def with_options(
        calls_file: io.StringIO | None = None, **options: Any
    ) -> TestClient[web.Request, web.Application]:
        return await aiohttp_client(program.make_app(program.Options(**options), calls_file))

    return with_options


def chat(**members: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": MESSAGES, **members}


def payloads(text: str) -> list[Any]:
    return [json.loads(event) for event in text.replace("data: ", "").split("\n\n") if event.startswith("{")]


async def listed(client: TestClient[web.Request, web.Application]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = await (await client.get("/calls")).json()
    return calls


async def test_counts_follow_from_the_request(start: Start) -> None:
    client = await start()

    default = await (await client.post(CHAT, json=chat())).json()
    asked = await (await client.post(CHAT, json=chat(max_tokens=9))).json()

    assert default["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    assert asked["usage"] == {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
    assert asked["choices"][0]["message"]["content"].split() == ["one", "row", "for", "each", "call"] + [
        "one",
        "row",
        "for",
        "each",
    ]


async def test_a_stream_has_counts_only_when_asked_for(start: Start) -> None:
    client = await start()

    plain = await (await client.post(CHAT, json=chat(stream=True))).text()
    counted = await (
        await client.post(CHAT, json=chat(stream=True, stream_options={"include_usage": True}))
    ).text()

    assert plain.endswith("data: [DONE]\n\n") and counted.endswith("data: [DONE]\n\n")
    assert all("usage" not in chunk for chunk in payloads(plain))
    *chunks, last = payloads(counted)
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks)
    assert last["choices"] == [] and last["usage"]["total_tokens"] == 10


async def test_a_stream_has_as_many_pieces_as_planned(start: Start) -> None:
    client = await start(chunks=4)

    text = await (await client.post(CHAT, json=chat(stream=True, max_tokens=8))).text()

    pieces = [chunk["choices"][0]["delta"].get("content") for chunk in payloads(text)]
    assert pieces == ["one row ", "for each ", "call one ", "row for ", None]


async def test_cached_and_reasoning_tokens_come_on_demand(start: Start) -> None:
    client = await start(cached_tokens=2)

    answer = await (await client.post(CHAT, json=chat(fake={"reasoning_tokens": 1}))).json()

    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}


@pytest.mark.parametrize("status", [400, 429, 500, 503])
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_one_call_can_be_told_to_fail(start: Start, status: int, is_streamed: bool) -> None:
    client = await start()

    response = await client.post(CHAT, json=chat(stream=is_streamed, fake={"status": status}))

    assert response.status == status
    assert "message" in (await response.json())["error"]
    assert ("Retry-After" in response.headers) == (status in (429, 503))


@pytest.mark.parametrize("cut_after", [0, 2, 5])
async def test_one_stream_can_be_cut_behind_its_first_pieces(start: Start, cut_after: int) -> None:
    client = await start()

    response = await client.post(CHAT, json=chat(stream=True, fake={"cut_after": cut_after}))
    got = b""
    with pytest.raises(aiohttp.ClientPayloadError):
        async for chunk in response.content.iter_any():
            got += chunk

    assert got.count(b"data: ") == cut_after
    assert [call["finished"] for call in await listed(client)] == [False]


async def test_one_plain_answer_can_be_cut(start: Start) -> None:
    client = await start()

    response = await client.post(CHAT, json=chat(fake={"cut_after": 0}))

    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()


async def test_one_answer_can_be_malformed(start: Start) -> None:
    client = await start()

    plain = await client.post(CHAT, json=chat(fake={"malformed": True}))
    streamed = await client.post(CHAT, json=chat(stream=True, fake={"malformed": True}))

    with pytest.raises(ValueError, match="Expecting|Unterminated"):
        json.loads(await plain.read())
    assert (streamed.status, streamed.content_type) == (200, "text/html")


async def test_one_answer_can_lack_its_counts(start: Start) -> None:
    client = await start()
    options = {"include_usage": True}

    plain = await (await client.post(CHAT, json=chat(fake={"no_usage": True}))).json()
    streamed = await client.post(
        CHAT, json=chat(stream=True, stream_options=options, fake={"no_usage": True})
    )

    assert "usage" not in plain
    assert all(chunk["usage"] is None for chunk in payloads(await streamed.text()))


async def test_one_call_can_hang_until_the_client_leaves(start: Start) -> None:
    client = await start()

    with pytest.raises(TimeoutError):
        await client.post(CHAT, json=chat(fake={"hang": True}), timeout=aiohttp.ClientTimeout(total=0.05))

    assert [call["finished"] for call in await listed(client)] == [False]


async def test_a_word_that_the_fake_object_does_not_know_is_refused(start: Start) -> None:
    client = await start()

    response = await client.post(CHAT, json=chat(fake={"stauts": 500}))

    assert response.status == 400 and await listed(client) == []


async def test_every_call_is_listed_in_order_and_has_its_line_in_the_file(start: Start) -> None:
    file = io.StringIO()
    client = await start(calls_file=file)

    await client.post(CHAT, json=chat(user="ann", max_tokens=3), headers={"x-request-id": "r1"})
    await (await client.post(CHAT, json=chat(stream=True), headers={"x-request-id": "r2"})).read()
    await client.post("/v1/embeddings", json={"model": "e", "input": "a b"}, headers={"x-request-id": "r3"})
    calls = await listed(client)

    assert [(call["request_id"], call["user"], call["endpoint"], call["stream"]) for call in calls] == [
        ("r1", "ann", CHAT, False),
        ("r2", None, CHAT, True),
        ("r3", None, "/v1/embeddings", False),
    ]
    assert [(call["prompt_tokens"], call["completion_tokens"]) for call in calls] == [(5, 3), (5, 5), (2, 0)]
    assert all(call.pop("finished") and call.pop("took_ms") >= 0 for call in calls)
    assert [json.loads(line) for line in file.getvalue().splitlines()] == calls


async def test_one_seed_gives_one_sequence_of_plans() -> None:
    options = program.Options(
        delay_ms=20,
        jitter_sigma=1,
        delay_min_ms=5,
        delay_max_ms=80,
        error_rate=0.3,
        hang_rate=0.3,
        cut_rate=0.3,
    )

    plans = [program.plan_of(options, number, {}) for number in range(500)]

    assert plans == [program.plan_of(options, number, {}) for number in range(500)]
    assert all(5 <= plan.delay_ms <= 80 for plan in plans)
    assert len({(plan.status != 200, plan.hang, plan.cut_after is not None) for plan in plans}) == 8
    assert sorted(plan.delay_ms for plan in plans)[250] == pytest.approx(20, rel=0.25)


async def test_rates_of_one_befall_every_call(start: Start) -> None:
    client = await start(error_rate=1)

    response = await client.post(CHAT, json=chat())

    assert response.status in ERRORS


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, Path]]:
    calls_file = tmp_path / "calls.jsonl"
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        "--port",
        "0",
        "--calls-file",
        str(calls_file),
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(LONG_S):
            ready = json.loads(await child.stdout.readline())
        assert ready["event"] == "listening"
        yield child, ready["url"], calls_file
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def test_the_official_client_is_served_by_the_program(
    process: tuple[asyncio.subprocess.Process, str, Path],
) -> None:
    _, url, calls_file = process
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = await client.chat.completions.create(**chat())
        stream = await client.chat.completions.create(
            **chat(stream=True, stream_options={"include_usage": True})
        )
        chunks = [chunk async for chunk in stream]
        vectors = await client.embeddings.create(model="e", input=["a b", "c"], dimensions=4)
        names = [model.id async for model in client.models.list()]

    assert answer.usage is not None and answer.usage.total_tokens == 10
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 10
    assert vectors.usage.prompt_tokens == 3
    assert [each.embedding for each in vectors.data] == [[0, 0.125, 0.25, 0.375], [0.125, 0.25, 0.375, 0.5]]
    assert names == ["fake", "fake-embedding"]
    assert len(calls_file.read_text().splitlines()) == 3


async def test_the_program_stops_on_sigterm_also_with_a_call_that_hangs(
    process: tuple[asyncio.subprocess.Process, str, Path],
) -> None:
    child, url, _ = process
    async with aiohttp.ClientSession() as session:
        hanging = asyncio.ensure_future(session.post(url + CHAT, json=chat(fake={"hang": True})))
        async with asyncio.timeout(LONG_S):
            while not await (await session.get(f"{url}/calls")).json():
                pass
            child.send_signal(signal.SIGTERM)
            status = await child.wait()
        with pytest.raises(aiohttp.ClientError):
            await hanging

    assert status == 0


# --- the other endpoints

OTHERS = {
    "/v1/completions": {"prompt": "two words"},
    "/v1/responses": {"input": "two words"},
    "/v1/images/generations": {"prompt": "two words"},
    "/v1/messages": {"messages": [{"role": "user", "content": "two words"}]},
}
HEADERS = {"x-api-key": "x", "anthropic-version": "x"}


@pytest.mark.parametrize("path", OTHERS)
async def test_other_endpoints_count_in_their_own_words(start: Start, path: str) -> None:
    client = await start()

    answer = await (await client.post(path, json={"model": "fake", **OTHERS[path]}, headers=HEADERS)).json()

    usage = answer["usage"]
    counts = [
        usage.get(name) for name in ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens")
    ]
    assert [count for count in counts if count is not None] == [2, 5]
    assert (await listed(client))[0]["endpoint"] == path


@pytest.mark.parametrize("path", OTHERS)
@pytest.mark.parametrize(
    ("fake", "is_whole"), [({}, True), ({"cut_after": 1}, False), ({"cut_after": 0}, False)]
)
async def test_other_streams_are_cut_as_planned(
    start: Start, path: str, fake: dict[str, Any], is_whole: bool
) -> None:
    client = await start()
    body = {"model": "fake", **OTHERS[path], "stream": True, "fake": fake}

    response = await client.post(path, json=body, headers=HEADERS)

    if is_whole:
        assert (await response.text()).endswith("\n\n")
    else:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert (await listed(client))[0]["finished"] == is_whole


@pytest.mark.parametrize("path", [*OTHERS, "/v1/audio/speech"])
async def test_other_endpoints_answer_nonsense_as_planned(start: Start, path: str) -> None:
    client = await start(malformed_rate=1.0)
    body = {"model": "fake", "input": "x", **OTHERS.get(path, {}), "stream": True}

    response = await client.post(path, json=body, headers=HEADERS)

    assert response.content_type == "text/html"


@pytest.mark.parametrize("path", OTHERS)
async def test_what_is_no_count_is_refused(start: Start, path: str) -> None:
    client = await start()

    for strange in ("x", -1, 10**9, []):
        body = {"model": "fake", **OTHERS[path], "n": strange}
        assert (await client.post(path, json=body, headers=HEADERS)).status == 400


async def test_messages_need_their_headers(start: Start) -> None:
    client = await start()

    response = await client.post("/v1/messages", json={"model": "fake", **OTHERS["/v1/messages"]})

    assert (response.status, (await response.json())["type"]) == (400, "error")
