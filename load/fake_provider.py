"""An OpenAI-compatible provider in a process of its own, for demos, tests and load.

Answers chat completions (streamed and not), embeddings and what ``fake_shapes.py`` knows, with counts that
follow from the request alone: prompt tokens are the words of its messages or input, completion tokens are
``max_tokens`` or 5. It can be slow, fail, hang, cut, answer nonsense or leave the counts out, by rates for
all calls or by a ``fake`` object in the body of one. It keeps a list of every call it saw (``GET /calls``,
``--calls-file``), so that somebody else can compare.

    python load/fake_provider.py --port 0      prints {"event": "listening", "url": ...} when it is ready
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import math
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web
from aiohttp.typedefs import Handler
from fake_bodies import bad_request, check_headers, error, first, read_body, words
from fake_plan import Calls, Options, Plan, Seen, plan_of
from fake_shapes import SHAPES, Body, Told

DEFAULT_COMPLETION_TOKENS = 5
MAX_WORDS = 10_000
"""Words of text that are really sent, however many tokens are counted."""
MODELS = ("fake", "fake-embedding")
WORDS = ("one", "row", "for", "each", "call")


OPTIONS = web.AppKey("options", Options)
CALLS = web.AppKey("calls", Calls)
CALL = web.RequestKey("call", Seen)


def make_app(options: Options | None = None, calls_file: TextIO | None = None) -> web.Application:
    """The provider as an application, to be served by whoever wants it."""
    app = web.Application(client_max_size=64 * 1024 * 1024, middlewares=[timed])
    app[OPTIONS] = options or Options()
    app[CALLS] = Calls(calls_file)
    app.router.add_post("/v1/chat/completions", chat_completions)
    app.router.add_post("/v1/embeddings", embeddings)
    for path in SHAPES:
        app.router.add_post(path, shaped)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/calls", calls)
    return app


@web.middleware
async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Each call in the list knows what it took here, so that others can tell the gateway's share."""
    began = time.perf_counter()
    response = await handler(request)
    if (call := request.get(CALL)) is not None:
        call.took_ms = round((time.perf_counter() - began) * 1000, 3)
    return response


async def chat_completions(request: web.Request) -> web.StreamResponse:
    body = await read_body(request)
    asked = first(body, "max_completion_tokens", "max_tokens")
    completion = DEFAULT_COMPLETION_TOKENS if asked is None else asked
    if not isinstance(completion, int) or completion < 0:
        raise bad_request("max_tokens is a count")
    call, plan = _arrived(request, body, words(body.get("messages")), completion)
    if (failure := await _before_answer(call, plan)) is not None:
        return failure
    if body.get("stream"):
        return await _stream(request, body, call, plan)
    text = " ".join(_text(completion))
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    answer = {**_envelope(call, "chat.completion"), "choices": [choice], **_usage_member(call, plan)}
    return await _plain(request, answer, call, plan)


async def embeddings(request: web.Request) -> web.StreamResponse:
    body = await read_body(request)
    asked = body.get("input")
    texts = asked if isinstance(asked, list) else [asked]
    call, plan = _arrived(request, body, sum(words(text) for text in texts), 0)
    if (failure := await _before_answer(call, plan)) is not None:
        return failure
    size = int(body.get("dimensions") or 8)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _vector(size, index, body.get("encoding_format")),
        }
        for index in range(len(texts))
    ]
    answer: dict[str, Any] = {"object": "list", "data": data, "model": call.model}
    if not plan.no_usage:
        answer["usage"] = {"prompt_tokens": call.prompt_tokens, "total_tokens": call.prompt_tokens}
    return await _plain(request, answer, call, plan)


async def shaped(request: web.Request) -> web.StreamResponse:
    """Every other endpoint, by its shape."""
    shape = SHAPES[request.path]
    if request.path.startswith("/v1/messages"):
        check_headers(request)
    body = await read_body(request)
    completion = _count(body, shape.limit, DEFAULT_COMPLETION_TOKENS) if shape.limit else 0
    for name in ("n", "partial_images"):
        body[name] = _count(body, name, 1)
    call, plan = _arrived(request, body, sum(words(body.get(name)) for name in shape.asked), completion)
    if (failure := await _before_answer(call, plan)) is not None:
        return failure
    told = _told(body, call, plan)
    if shape.events is not None and _wants_events(body):
        return await _events(request, shape.events(told), call, plan)
    answer = shape.answer(told)
    if isinstance(answer, bytes | str):
        return await _sound(request, answer, call, plan)
    return await _plain(request, answer, call, plan)


def _count(body: Body, name: str, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or not 0 <= value <= 1_000_000:
        raise bad_request(f"{name} is a count")
    return value


def _told(body: Body, call: Seen, plan: Plan) -> Told:
    return Told(
        number=call.number,
        body=body,
        model=call.model,
        words=_text(call.completion_tokens),
        prompt_tokens=call.prompt_tokens,
        completion_tokens=call.completion_tokens,
        chunks=plan.chunks,
        no_usage=plan.no_usage,
        cached_tokens=plan.cached_tokens,
        reasoning_tokens=plan.reasoning_tokens,
    )


def _wants_events(body: Body) -> bool:
    return body.get("stream") in (True, "true") or body.get("stream_format") == "sse"


async def _events(
    request: web.Request, events: Iterator[tuple[bytes, bool]], call: Seen, plan: Plan
) -> web.StreamResponse:
    if plan.malformed:
        return _page(call)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    pieces = 0
    for event, is_piece in events:
        if is_piece or pieces:
            if plan.cut_after is not None and pieces >= plan.cut_after:
                return _hung_up(request, response)
            pieces += 1
            await asyncio.sleep(plan.chunk_ms / 1000)
        await response.write(event)
    call.finished = True
    return response


async def _sound(request: web.Request, body: bytes | str, call: Seen, plan: Plan) -> web.StreamResponse:
    """A body that is no JSON, in pieces."""
    if plan.malformed:
        return _page(call)
    kind = "text/plain; charset=utf-8" if isinstance(body, str) else "audio/wav"
    raw = body.encode() if isinstance(body, str) else body
    response = web.StreamResponse(headers={"Content-Type": kind})
    response.enable_chunked_encoding()
    await response.prepare(request)
    size = max(1, -(-len(raw) // max(1, plan.chunks)))
    for index, start in enumerate(range(0, len(raw), size)):
        if plan.cut_after == index:
            return _hung_up(request, response)
        await asyncio.sleep(plan.chunk_ms / 1000)
        await response.write(raw[start : start + size])
    call.finished = True
    return response


async def models(request: web.Request) -> web.Response:
    listed = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in MODELS]
    return web.json_response({"object": "list", "data": listed})


async def calls(request: web.Request) -> web.Response:
    return web.json_response([vars(call) for call in request.app[CALLS].seen])


def _arrived(request: web.Request, body: dict[str, Any], prompt: int, completion: int) -> tuple[Seen, Plan]:
    number = len(request.app[CALLS].seen) + 1
    plan = plan_of(request.app[OPTIONS], number, body.get("fake") or {})
    call = Seen(
        number=number,
        request_id=request.headers.get("x-request-id"),
        user=body.get("user"),
        endpoint=request.path,
        model=str(body.get("model")),
        stream=_wants_events(body),
        status=plan.status,
        prompt_tokens=prompt,
        completion_tokens=completion,
        no_usage=plan.no_usage,
    )
    request.app[CALLS].add(call)
    request[CALL] = call
    return call, plan


async def _before_answer(call: Seen, plan: Plan) -> web.Response | None:
    """Wait as planned; gives the answer when it is an error."""
    if plan.hang:
        await asyncio.Event().wait()  # until the client leaves or the server stops
    await asyncio.sleep(plan.delay_ms / 1000)
    if plan.status == 200:
        return None
    call.finished = True
    headers = {"Retry-After": "1"} if plan.status in (429, 503) else {}
    return web.json_response(
        error(plan.status, "The fake provider was told to fail.", call.endpoint),
        status=plan.status,
        headers=headers,
    )


async def _plain(request: web.Request, answer: dict[str, Any], call: Seen, plan: Plan) -> web.StreamResponse:
    payload = json.dumps(answer).encode()
    if plan.cut_after is not None:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(payload)
        await response.prepare(request)
        await response.write(payload[: len(payload) // 2])
        return _hung_up(request, response)
    call.finished = True
    if plan.malformed:
        payload = payload[: len(payload) // 2]
    return web.Response(body=payload, content_type="application/json")


async def _stream(request: web.Request, body: dict[str, Any], call: Seen, plan: Plan) -> web.StreamResponse:
    if plan.malformed:
        return _page(call)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    for index, delta in enumerate(_deltas(call.completion_tokens, plan.chunks)):
        if plan.cut_after == index:
            return _hung_up(request, response)
        await asyncio.sleep(plan.chunk_ms / 1000)
        await _write(response, {**_chunk(call, delta), **({"usage": None} if with_usage else {})})
    if plan.cut_after is not None:
        return _hung_up(request, response)
    await _write(response, {**_chunk(call, {}, "stop"), **({"usage": None} if with_usage else {})})
    if with_usage and not plan.no_usage:
        last = {**_envelope(call, "chat.completion.chunk"), "choices": [], **_usage_member(call, plan)}
        await _write(response, last)
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    call.finished = True
    return response


async def _write(response: web.StreamResponse, payload: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(payload).encode() + b"\n\n")


def _page(call: Seen) -> web.Response:
    call.finished = True
    return web.Response(text="<html>This is no answer.</html>", content_type="text/html")


def _hung_up(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection in the middle of ``response``, once what was written is out."""
    if request.transport is not None:
        request.transport.close()
    return response


def _text(tokens: int) -> list[str]:
    return list(itertools.islice(itertools.cycle(WORDS), min(tokens, MAX_WORDS)))


def _deltas(tokens: int, chunks: int) -> Iterator[dict[str, str]]:
    """The completion in at most ``chunks`` pieces; the first one names the role."""
    words = _text(tokens)
    size = max(1, math.ceil(len(words) / max(1, chunks)))
    for start in range(0, max(1, len(words)), size):
        text = "".join(f"{word} " for word in words[start : start + size])
        yield {"role": "assistant", "content": text} if start == 0 else {"content": text}


def _chunk(call: Seen, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {**_envelope(call, "chat.completion.chunk"), "choices": [choice]}


def _envelope(call: Seen, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-fake-{call.number}",
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
    }


def _usage_member(call: Seen, plan: Plan) -> dict[str, Any]:
    if plan.no_usage:
        return {}
    usage: dict[str, Any] = {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "total_tokens": call.prompt_tokens + call.completion_tokens,
    }
    if plan.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": plan.cached_tokens}
    if plan.reasoning_tokens is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": plan.reasoning_tokens}
    return {"usage": usage}


def _vector(size: int, index: int, encoding: object) -> list[float] | str:
    values = [((index + place) % 7) / 8 for place in range(size)]
    return base64.b64encode(struct.pack(f"<{size}f", *values)).decode() if encoding == "base64" else values


async def serve(host: str, port: int, options: Options, calls_file: TextIO | None) -> None:
    """Serve until SIGTERM or SIGINT; calls that still run are cut off."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    runner = web.AppRunner(
        make_app(options, calls_file), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
        bound_host, bound_port = runner.addresses[0][:2]
        print(json.dumps({"event": "listening", "url": f"http://{bound_host}:{bound_port}"}), flush=True)
        await stopped.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9999)
    parser.add_argument(
        "--calls-file", type=Path, help="append one JSON line per call, before it is answered"
    )
    for each in fields(Options):
        kind = float if isinstance(each.default, float) else int
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=kind, default=each.default)
    given = vars(parser.parse_args())
    options = Options(**{each.name: given[each.name] for each in fields(Options)})
    calls_file = given["calls_file"].open("a", encoding="utf-8") if given["calls_file"] else None
    asyncio.run(serve(given["host"], given["port"], options, calls_file))


if __name__ == "__main__":
    main()
