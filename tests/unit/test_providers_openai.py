"""The OpenAI client against real servers on 127.0.0.1: what goes out, what comes back, how it fails."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from gateway.formats.plain import IMAGES
from gateway.providers import openai as openai_module
from gateway.providers.base import Event, Payload, Provider
from gateway.providers.errors import (
    ProviderError,
    ProviderFailed,
    ProviderMalformed,
    ProviderRejected,
    ProviderStreamCut,
    ProviderTimeout,
    ProviderUnreachable,
)
from gateway.providers.pool import open_providers
from gateway.token_usage import TokenUsage

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
Wire = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CHAT = "/v1/chat/completions"
EMPTY = Payload(b"{}")
KEY = "sk-configured-0123456789"
LONG_S = 60.0
SHORT_S = 0.05
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@dataclass
class Entry:
    base_url: str
    api_key: SecretStr
    timeout_s: float
    type: str = "openai"


@asynccontextmanager
async def provider_at(url: str, timeout_s: float = LONG_S, key: str = KEY) -> AsyncIterator[Provider]:
    entry: Any = Entry(f"{url}/v1", SecretStr(key), timeout_s)
    async with open_providers({"one": entry}) as providers:
        yield providers["one"]


@pytest.fixture
def serve(aiohttp_server: Callable[[web.Application], Awaitable[TestServer]]) -> Serve:
    async def start(handler: Handler) -> str:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", handler)
        return str((await aiohttp_server(app)).make_url("")).rstrip("/")

    return start


@asynccontextmanager
async def wire_server(talk: Wire) -> AsyncIterator[str]:
    """A server of bytes, for what no HTTP library would send."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        await server.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return head + await reader.readexactly(length)


def answers(
    body: bytes, status: int = 200, content_type: str = "application/json", **headers: str
) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        await request.read()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, status=status, headers={"Content-Type": content_type, **names})

    return handler


def streams(*chunks: bytes, content_type: str = "text/event-stream") -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        return response

    return handler


async def silence(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError("nobody wakes it")


async def collect(opened: AbstractAsyncContextManager[Any]) -> list[Event]:
    async with opened as stream:
        return [event async for events in stream for event in events]


async def failure_of(awaitable: Awaitable[object]) -> ProviderError:
    with pytest.raises(ProviderError) as failure:
        await awaitable
    return failure.value


async def test_an_answer_comes_back_as_its_bytes_with_its_counts(serve: Serve) -> None:
    body = b'{ "choices": [], "usage": ' + json.dumps(USAGE).encode() + b"}\n"
    async with provider_at(await serve(answers(body))) as provider:
        answer = await provider.send(CHAT, EMPTY)

    assert (answer.status, answer.body, answer.usage) == (200, body, TokenUsage(3, 2, 5))
    assert provider.name == "one"


async def test_the_request_carries_the_body_untouched_and_our_headers(serve: Serve) -> None:
    seen: list[tuple[str, bytes, Mapping[str, str]]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.path_qs, await request.read(), request.headers))
        return web.json_response({})

    raw = ' {"model": "x", "text": "é"}\n'.encode() + b" " * 2_000_000
    async with provider_at(await serve(handler)) as provider:
        await provider.send(CHAT, Payload(raw), "request-1")

    [(path, body, headers)] = seen
    assert (path, body) == (CHAT, raw)
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["x-request-id"] == "request-1"
    assert headers["User-Agent"].startswith("tallygate/")
    assert headers["Content-Type"] == headers["Accept"] == "application/json"


async def test_a_provider_without_a_key_gets_no_authorization(serve: Serve) -> None:
    seen: list[bool] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append("Authorization" in request.headers or "x-request-id" in request.headers)
        return web.json_response({})

    async with provider_at(await serve(handler), key="none") as provider:
        await provider.send(CHAT, EMPTY)

    assert seen == [False]


@pytest.mark.parametrize(
    ("base", "endpoint", "path"),
    [
        ("/v1", CHAT, "/v1/chat/completions"),
        ("/v1/", "/chat/completions", "/v1/chat/completions"),
        ("", "/v1/embeddings", "/embeddings"),
        ("/api/v3", "/v1/embeddings", "/api/v3/embeddings"),
    ],
)
async def test_the_base_url_stands_for_our_own_v1(serve: Serve, base: str, endpoint: str, path: str) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path_qs)
        return web.json_response({})

    entry: Any = Entry(await serve(handler) + base, SecretStr("none"), LONG_S)
    async with open_providers({"one": entry}) as providers:
        await providers["one"].send(endpoint, EMPTY)

    assert seen == [path]


async def test_calls_one_after_the_other_use_one_connection(serve: Serve) -> None:
    ports: set[int] = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        if request.path.endswith("embeddings"):
            return web.json_response({})
        return await streams(b"data: a\n\n", b"data: [DONE]\n\n")(request)

    async with provider_at(await serve(handler)) as provider:
        for _ in range(3):
            await provider.send("/v1/embeddings", EMPTY)
            await collect(provider.stream(CHAT, EMPTY))

    assert len(ports) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "provider_bad_request"),
        (404, "provider_not_found"),
        (422, "provider_unprocessable"),
        (429, "provider_rate_limited"),
    ],
)
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_what_a_client_can_act_on_is_passed_on_redacted(
    serve: Serve, status: int, code: str, is_streamed: bool
) -> None:
    body = json.dumps({"error": {"message": f"Not with {KEY}\nplease."}}).encode()
    async with provider_at(await serve(answers(body, status, Retry_After="7"))) as provider:
        call = collect(provider.stream(CHAT, EMPTY)) if is_streamed else provider.send(CHAT, EMPTY)
        failure = await failure_of(call)

    assert isinstance(failure, ProviderRejected)
    assert (failure.status, failure.code, failure.end_reason) == (status, code, "provider_error")
    assert failure.message == "Not with [redacted] please."
    assert failure.headers == {"Retry-After": "7"}


@pytest.mark.parametrize("status", [302, 307, 401, 403, 402, 409, 413, 500, 503, 529])
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_any_other_status_is_a_502_and_is_not_followed(
    serve: Serve, status: int, is_streamed: bool
) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        return await answers(b"<html>oops</html>", status, "text/html", Location="/elsewhere")(request)

    async with provider_at(await serve(handler)) as provider:
        call = collect(provider.stream(CHAT, EMPTY)) if is_streamed else provider.send(CHAT, EMPTY)
        failure = await failure_of(call)

    assert isinstance(failure, ProviderFailed)
    assert (failure.status, failure.code, failure.headers) == (502, "provider_error", {})
    assert str(status) in failure.message and "html" not in failure.message
    assert seen == [CHAT]


@pytest.mark.parametrize("status", [401, 403])
async def test_what_a_provider_says_of_our_key_stays_here(serve: Serve, status: int) -> None:
    body = b'{"error": {"message": "Key abc of organisation Acme is blocked"}}'
    async with provider_at(await serve(answers(body, status))) as provider:
        failure = await failure_of(provider.send(CHAT, EMPTY))

    assert "Acme" not in failure.message


async def test_an_error_that_is_cut_off_keeps_its_status() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 429 Slow\r\nContent-Length: 100\r\n\r\n{")

    async with wire_server(talk) as url, provider_at(url) as provider:
        failure = await failure_of(provider.send(CHAT, EMPTY))

    assert isinstance(failure, ProviderRejected) and failure.status == 429


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b'{"choices": [', "application/json"),
        (b"[]", "application/json"),
        (b"null", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"a": "\xff"}', "application/json"),
        (b"{}", "text/html"),
        (b"data: [DONE]\n\n", "text/event-stream"),
    ],
)
async def test_a_plain_answer_that_is_no_json_object_is_malformed(
    serve: Serve, body: bytes, content_type: str
) -> None:
    async with provider_at(await serve(answers(body, 200, content_type))) as provider:
        failure = await failure_of(provider.send(CHAT, EMPTY))

    assert isinstance(failure, ProviderMalformed)
    assert (failure.status, failure.code) == (502, "provider_malformed")


async def test_a_plain_answer_over_the_bound_is_malformed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_module, "MAX_ANSWER_BYTES", 100_000)
    packed = gzip.compress(b'{"a": "' + b"x" * 200_000 + b'"}')
    handler = answers(packed, Content_Encoding="gzip")
    async with provider_at(await serve(handler)) as provider:
        failure = await failure_of(provider.send(CHAT, EMPTY))

    assert isinstance(failure, ProviderMalformed)


async def test_a_compressed_answer_is_unpacked(serve: Serve) -> None:
    handler = answers(gzip.compress(b'{"a": 1}'), Content_Encoding="gzip")
    async with provider_at(await serve(handler)) as provider:
        assert (await provider.send(CHAT, EMPTY)).body == b'{"a": 1}'


async def test_an_error_under_status_200_is_a_failure(serve: Serve) -> None:
    handler = answers(b'{"error": {"message": "upstream is down", "code": 502}}')
    async with provider_at(await serve(handler)) as provider:
        failure = await failure_of(provider.send(CHAT, EMPTY))

    assert isinstance(failure, ProviderFailed) and failure.message == "upstream is down"


async def test_silence_is_a_504(serve: Serve) -> None:
    async with provider_at(await serve(silence), timeout_s=SHORT_S) as provider:
        for call in (provider.send(CHAT, EMPTY), collect(provider.stream(CHAT, EMPTY))):
            failure = await failure_of(call)

            assert isinstance(failure, ProviderTimeout)
            assert (failure.status, failure.code, failure.end_reason) == (504, "provider_timeout", "timeout")


async def test_silence_within_a_stream_is_a_504_after_the_events_before_it(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = await streams(b"data: a\n\n")(request)
        await asyncio.Event().wait()
        return response

    got: list[bytes] = []
    async with provider_at(await serve(handler), timeout_s=1) as provider:  # enough for what comes before
        with pytest.raises(ProviderTimeout):
            async with provider.stream(CHAT, EMPTY) as stream:
                async for events in stream:
                    got.extend(event.raw for event in events)

    assert got == [b"data: a\n\n"]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Taken, so that nobody else gets it; nobody listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_a_closed_port_is_unreachable(closed_port: int) -> None:
    async with provider_at(f"http://127.0.0.1:{closed_port}") as provider:
        for call in (provider.send(CHAT, EMPTY), collect(provider.stream(CHAT, EMPTY))):
            failure = await failure_of(call)

            assert isinstance(failure, ProviderUnreachable)
            assert (failure.status, failure.code) == (502, "provider_unreachable")
            assert str(closed_port) not in failure.message


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
async def test_a_connection_lost_before_the_end_of_a_plain_answer_is_unreachable(said: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(said)

    async with wire_server(talk) as url, provider_at(url) as provider:
        assert isinstance(await failure_of(provider.send(CHAT, EMPTY)), ProviderUnreachable)


async def test_what_is_not_http_is_malformed() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"220 mail.example ESMTP\r\n\r\n")

    async with wire_server(talk) as url, provider_at(url) as provider:
        for call in (provider.send(CHAT, EMPTY), collect(provider.stream(CHAT, EMPTY))):
            assert isinstance(await failure_of(call), ProviderMalformed)


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_call_on_a_stale_connection_is_sent_once_and_never_again(is_streamed: bool) -> None:
    requests: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        requests.append(await read_request(reader))  # on the kept connection, which then goes away

    async with wire_server(talk) as url, provider_at(url) as provider:
        await provider.send(CHAT, EMPTY)
        call = collect(provider.stream(CHAT, EMPTY)) if is_streamed else provider.send(CHAT, EMPTY)
        failure = await failure_of(call)

    assert isinstance(failure, ProviderUnreachable)
    assert len(requests) == 2


async def test_a_stream_comes_event_by_event_as_its_bytes(serve: Serve) -> None:
    parts = [
        b": hello\r\n\r\n",
        b'data: {"choices": [{}], "usage": null}\n\n',
        b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\r\r',
        b"data: [DONE]\n\n",
    ]
    whole = b"".join(parts)
    handler = streams(*(whole[at : at + 7] for at in range(0, len(whole), 7)))
    async with provider_at(await serve(handler)) as provider:
        events = await collect(provider.stream(CHAT, EMPTY))

    assert [event.raw for event in events] == parts
    assert [event.is_usage_only for event in events] == [False, False, True, False]
    assert [event.is_done for event in events] == [False, False, False, True]
    assert events[2].usage == TokenUsage(3)


async def test_an_event_is_given_before_the_next_one_is_sent(serve: Serve) -> None:
    may_go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = await streams(b"data: a\n\n")(request)
        await may_go_on.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    async with provider_at(await serve(handler)) as provider, provider.stream(CHAT, EMPTY) as stream:
        (first,) = await anext(stream)
        may_go_on.set()
        (last,) = await anext(stream)

    assert (first.raw, last.is_done) == (b"data: a\n\n", True)


async def test_nothing_is_given_behind_the_last_event(serve: Serve) -> None:
    handler = streams(b"data: [DONE]\n\ndata: more\n\n", b"data: more\n\n")
    async with provider_at(await serve(handler)) as provider:
        assert [event.raw for event in await collect(provider.stream(CHAT, EMPTY))] == [b"data: [DONE]\n\n"]


async def test_a_stream_ends_at_its_last_event_also_when_the_provider_keeps_it_open(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = await streams(b"data: [DONE]\n\n")(request)
        await asyncio.Event().wait()
        return response

    async with provider_at(await serve(handler)) as provider:
        assert len(await collect(provider.stream(CHAT, EMPTY))) == 1


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
async def test_a_last_event_without_its_empty_line_is_completed(serve: Serve, end: bytes) -> None:
    async with provider_at(await serve(streams(b"data: a\n\n", b"data: [DONE]" + end))) as provider:
        events = await collect(provider.stream(CHAT, EMPTY))

    assert [event.raw for event in events] == [b"data: a\n\n", b"data: [DONE]\n\n"]


@pytest.mark.parametrize(
    "chunks",
    [(), (b"data: a\n\n",), (b"data: a\n\n", b"data: [DO"), (b'data: {"error": {"message": "x"}}\n\n',)],
)
async def test_a_stream_that_ends_without_its_last_event_is_cut(
    serve: Serve, chunks: tuple[bytes, ...]
) -> None:
    async with provider_at(await serve(streams(*chunks))) as provider:
        failure = await failure_of(collect(provider.stream(CHAT, EMPTY)))

    assert isinstance(failure, ProviderStreamCut)
    assert (failure.status, failure.code) == (502, "provider_stream_cut")


async def test_a_stream_whose_connection_breaks_is_cut_behind_its_whole_events() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"d\r\ndata: a\n\ndata\r\n")
        await writer.drain()
        await may_close.wait()

    may_close = asyncio.Event()
    async with (
        wire_server(talk) as url,
        provider_at(url) as provider,
        provider.stream(CHAT, EMPTY) as stream,
    ):
        (first,) = await anext(stream)
        may_close.set()
        failure = await failure_of(anext(stream))

    assert first.raw == b"data: a\n\n"
    assert isinstance(failure, ProviderStreamCut)


@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
async def test_a_stream_of_another_content_type_is_malformed(serve: Serve, content_type: str) -> None:
    handler = streams(b"data: [DONE]\n\n", content_type=content_type)
    async with provider_at(await serve(handler)) as provider:
        assert isinstance(await failure_of(collect(provider.stream(CHAT, EMPTY))), ProviderMalformed)


async def test_an_event_over_the_bound_is_malformed(serve: Serve) -> None:
    handler = streams(b"data: a\n\n", *[b"x" * 65536] * 17)
    async with provider_at(await serve(handler)) as provider:
        assert isinstance(await failure_of(collect(provider.stream(CHAT, EMPTY))), ProviderMalformed)


async def test_the_counts_before_an_event_over_the_bound_are_not_lost(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(IMAGES), "max_event_bytes", 1000)
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    told = json.dumps({"type": "image_generation.completed", "usage": usage}).encode()
    handler = streams(b"data: " + told + b"\n\n" + b"data: " + b"x" * 2000)
    given: list[Event] = []
    async with provider_at(await serve(handler)) as provider:
        with pytest.raises(ProviderMalformed):
            async with provider.stream("/v1/images/generations", EMPTY) as stream:
                async for events in stream:
                    given += events

    assert [(each.usage, each.is_done) for each in given] == [(TokenUsage(3, 2, 5), False)]


async def test_a_cancelled_read_loses_no_event(serve: Serve) -> None:
    may_go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = await streams(b"data: a\n\nda")(request)
        await may_go_on.wait()
        await response.write(b"ta: b\n\ndata: [DONE]\n\n")
        return response

    async with provider_at(await serve(handler)) as provider, provider.stream(CHAT, EMPTY) as stream:
        await anext(stream)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        may_go_on.set()

        rest = [event.raw async for events in stream for event in events]
        assert rest == [b"data: b\n\n", b"data: [DONE]\n\n"]


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_leaving_early_closes_the_connection(serve: Serve, is_streamed: bool) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        if is_streamed:
            await streams(b"data: a\n\n")(request)
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError("nobody wakes it")

    async def call(provider: Provider) -> None:
        if not is_streamed:
            await provider.send(CHAT, EMPTY)
        async with provider.stream(CHAT, EMPTY) as stream:
            async for _ in stream:
                pass

    async with provider_at(await serve(handler)) as provider:
        calling = asyncio.ensure_future(call(provider))
        await arrived.wait()
        calling.cancel()
        await asyncio.wait([calling])
        async with asyncio.timeout(LONG_S):
            await left.wait()

    assert calling.cancelled()


async def test_a_failure_of_the_reader_is_not_taken_for_the_providers(serve: Serve) -> None:
    async with provider_at(await serve(streams(b"data: [DONE]\n\n"))) as provider:
        with pytest.raises(ConnectionResetError, match="the client's"):
            async with provider.stream(CHAT, EMPTY):
                raise ConnectionResetError("the client's")
