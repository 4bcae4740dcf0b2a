"""Amazon's own SDK below any-llm's, over real HTTP: it blocks, it signs, it would like to try again."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib

import pytest
from aiohttp import web
from pydantic import SecretStr

from gateway.providers.any_llm.opening import open_sdk
from gateway.providers.any_llm.provider import AnyLlmProvider
from gateway.providers.base import Payload
from gateway.providers.errors import (
    ProviderFailed,
    ProviderRejected,
    ProviderStreamCut,
    ProviderTimeout,
)
from gateway.sections import ProviderSettings

pytest.importorskip("any_llm")
pytest.importorskip("boto3")

CHAT = "/v1/chat/completions"
USAGE = {"inputTokens": 3, "outputTokens": 4, "totalTokens": 9, "cacheReadInputTokens": 2}
LONG_S = 20.0


def frame(kind, payload):
    """One event of Amazon's binary stream."""
    told = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in told.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    whole = prelude + headers + body
    return whole + struct.pack(">I", zlib.crc32(whole))


def piece(text):
    return frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}})


END = (
    frame("messageStop", {"stopReason": "end_turn"}),
    frame("metadata", {"usage": USAGE, "metrics": {"latencyMs": 1}}),
)


class Amazon:
    """Answers what the test says, and keeps what it was asked."""

    def __init__(self):
        self.bodies = []
        self.steps = ()
        self.status = 200
        self.answer = {
            "output": {"message": {"role": "assistant", "content": [{"text": "one"}]}},
            "stopReason": "end_turn",
            "usage": USAGE,
        }

    async def handle(self, request):
        self.bodies.append(await request.json())
        if request.path.endswith("/converse"):
            headers = {"x-amzn-errortype": "ThrottlingException"} if self.status != 200 else None
            return web.json_response(self.answer, status=self.status, headers=headers)
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.amazon.eventstream"})
        await response.prepare(request)
        for step in self.steps:
            if isinstance(step, bytes):
                await response.write(step)
            elif step is None:
                request.transport.close()
            else:
                await step.wait()
        return response


@pytest.fixture
def amazon():
    return Amazon()


@pytest.fixture
async def opened(aiohttp_server, amazon, monkeypatch):
    """Makes providers of the SDK's ``bedrock``."""
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    app = web.Application()
    app.router.add_post("/{path:.*}", amazon.handle)
    url = str((await aiohttp_server(app)).make_url("")).rstrip("/")

    def make(timeout_s=LONG_S):
        entry = ProviderSettings(
            type="any-llm", provider="bedrock", api_key=SecretStr("none"), base_url=url, timeout_s=timeout_s
        )
        return AnyLlmProvider("aws", open_sdk("aws", entry), api_key="none", timeout_s=timeout_s)

    return make


def asked(**members):
    body = {"model": "amazon.nova", "messages": [{"role": "user", "content": "say"}], **members}
    return Payload(json.dumps(body).encode())


async def test_a_whole_answer_with_its_counts(opened, amazon):
    answer = await opened().send(CHAT, asked(max_completion_tokens=9, stop="x", user="u"))

    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "one"
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (5, 4, 2)
    assert amazon.bodies[0]["inferenceConfig"] == {"maxTokens": 9, "stopSequences": ["x"]}


async def test_a_stream_that_waits_holds_up_nobody_else(opened, amazon):
    go = asyncio.Event()  # which this loop has to serve while the SDK blocks
    amazon.steps = (piece("one"), go, piece("two"), *END)
    async with asyncio.timeout(LONG_S), opened().stream(CHAT, asked(stream=True)) as stream:
        assert b"one" in (await anext(stream))[0].raw
        rest = asyncio.ensure_future(_rest(stream))
        await asyncio.sleep(0)
        go.set()
        events = await rest

    assert b"two" in events[0].raw
    assert [each.usage.prompt_tokens for each in events if each.usage] == [5]
    assert events[-1].is_done


async def _rest(stream):
    return [event async for events in stream for event in events]


async def test_a_stream_that_breaks_off_was_cut(opened, amazon):
    amazon.steps = (piece("one"), None)
    async with opened().stream(CHAT, asked(stream=True)) as stream:
        with pytest.raises(ProviderStreamCut):
            await _rest(stream)


async def test_a_silence_ends_a_stream(opened, amazon):
    go = asyncio.Event()
    amazon.steps = (piece("one"), go)
    async with opened(timeout_s=0.5).stream(CHAT, asked(stream=True)) as stream:
        with pytest.raises(ProviderTimeout):
            await _rest(stream)
    go.set()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, ProviderRejected), (400, ProviderRejected), (403, ProviderFailed), (500, ProviderFailed)],
)
async def test_a_call_that_fails_went_out_once(opened, amazon, status, kind):
    amazon.status, amazon.answer = status, {"message": "slow down"}

    with pytest.raises(kind) as raised:
        await opened().send(CHAT, asked())

    assert raised.value.provider_status == status
    assert len(amazon.bodies) == 1
