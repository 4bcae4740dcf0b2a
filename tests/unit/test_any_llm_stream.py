"""Streams of the any-llm SDK: what becomes of a read that is cancelled, and of an SDK that blocks."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from gateway.providers.any_llm.provider import AnyLlmProvider
from gateway.providers.any_llm.threads import driven
from gateway.providers.base import Payload
from gateway.providers.errors import ProviderStreamCut, ProviderTimeout

CHAT = "/v1/chat/completions"
ASKED = Payload(json.dumps({"model": "m", "messages": [{}], "stream": True}).encode())
LONG_S = 20.0


class Choice(BaseModel):
    text: str
    finish_reason: str | None = None


class Chunk(BaseModel):
    choices: list[Choice]


class Sdk:
    """As the SDK's providers are, as far as anybody looks at them."""

    PROVIDER_NAME = "cohere"
    SUPPORTS_COMPLETION = True
    TIMEOUT_SUPPORT = "unsupported"

    def __init__(self) -> None:
        self.is_closed = asyncio.Event()
        self.go = asyncio.Event()

    async def acompletion(self, **asked: Any) -> AsyncIterator[Chunk]:
        return self.chunks()

    async def chunks(self) -> AsyncIterator[Chunk]:
        try:
            yield Chunk(choices=[Choice(text="one")])
            await self.go.wait()
            yield Chunk(choices=[Choice(text="two", finish_reason="stop")])
        finally:
            self.is_closed.set()


class BlockingSdk(Sdk):
    """As Amazon's: an asynchronous face on what blocks."""

    PROVIDER_NAME = "bedrock"

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.loop = asyncio.get_running_loop()
        self.blocks = asyncio.Event()

    async def acompletion(self, **asked: Any) -> AsyncIterator[Chunk]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self.chunks)

    async def chunks(self) -> AsyncIterator[Chunk]:
        yield Chunk(choices=[Choice(text="one")])
        self.loop.call_soon_threadsafe(self.blocks.set)
        assert self.gate.wait(LONG_S)
        yield Chunk(choices=[Choice(text="two", finish_reason="stop")])


def provider(sdk: Sdk, timeout_s: float = LONG_S) -> AnyLlmProvider:
    return AnyLlmProvider("p", sdk, api_key="sk-1", timeout_s=timeout_s)


async def test_a_read_that_is_cancelled_loses_no_event() -> None:
    sdk = Sdk()
    async with provider(sdk).stream(CHAT, ASKED) as stream:
        assert b"one" in (await anext(stream))[0].raw
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(stream)
        sdk.go.set()

        assert b"two" in (await anext(stream))[0].raw
        assert (await anext(stream))[-1].is_done
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert sdk.is_closed.is_set()


@pytest.mark.parametrize("has_read", [False, True])
async def test_leaving_a_stream_closes_it(has_read: bool) -> None:
    sdk = Sdk()
    async with provider(sdk).stream(CHAT, ASKED) as stream:
        await anext(stream)
        if has_read:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(stream)

    assert sdk.is_closed.is_set()


async def test_a_silence_is_counted_across_reads_that_were_cancelled() -> None:
    async with provider(Sdk(), timeout_s=0.1).stream(CHAT, ASKED) as stream:
        await anext(stream)
        with pytest.raises(ProviderTimeout):
            while True:
                try:
                    async with asyncio.timeout(0.03):
                        await anext(stream)
                except TimeoutError:
                    continue


async def test_a_stream_of_which_nothing_says_why_it_ended_was_cut() -> None:
    class Short(Sdk):
        async def chunks(self) -> AsyncIterator[Chunk]:
            yield Chunk(choices=[Choice(text="one")])

    async with provider(Short()).stream(CHAT, ASKED) as stream:
        await anext(stream)
        with pytest.raises(ProviderStreamCut):
            await anext(stream)


async def test_an_error_that_comes_only_with_the_first_chunk_comes_before_the_stream() -> None:
    class Refusing(Sdk):
        async def chunks(self) -> AsyncIterator[Chunk]:
            raise TimeoutError
            yield

    with pytest.raises(ProviderTimeout):
        async with provider(Refusing()).stream(CHAT, ASKED):
            raise AssertionError("has begun")


async def test_an_sdk_that_blocks_holds_up_nobody_else() -> None:
    sdk = BlockingSdk()
    async with asyncio.timeout(LONG_S), provider(sdk).stream(CHAT, ASKED) as stream:
        assert b"one" in (await anext(stream))[0].raw
        second = asyncio.ensure_future(anext(stream))
        await sdk.blocks.wait()
        sdk.gate.set()  # which this loop could not do if it were blocked

        assert b"two" in (await second)[0].raw
        assert (await anext(stream))[-1].is_done


async def test_a_stream_whose_sdk_blocks_can_be_left() -> None:
    sdk = BlockingSdk()
    async with asyncio.timeout(LONG_S):
        async with provider(sdk).stream(CHAT, ASKED) as stream:
            await anext(stream)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(stream)
    sdk.gate.set()


def test_only_what_blocks_is_driven_without_a_loop() -> None:
    async def waits() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError):
        driven(waits())
