"""A provider that costs next to nothing: canned answers over bare sockets, in a process of its own.

What a request's body says decides: ``"model": "slow"`` is answered after ``SLOW_S``, ``"stream": true`` with
``CHUNKS`` chunks, without a pause, or if it is slow with ``PAUSE_S`` before each. The id of an answer that is
no stream holds the microseconds that the provider took for it, so that they can be taken off.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import time
from collections.abc import Iterator
from typing import cast

import uvloop

SLOW_S = 0.2
PAUSE_S = 0.005
CHUNKS = 200
"""Those with text: what else a stream has (role, usage, end) comes on top."""
MODELS = ("fake", "slow")

_TOOK = "chatcmpl-{:010d}"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_IS_STREAMED = re.compile(rb'"stream": *true')
_IS_SLOW = re.compile(rb'"slow"')
_WANTS_USAGE = re.compile(rb'"include_usage": *true')
_USAGE = {"prompt_tokens": 50, "completion_tokens": 50, "total_tokens": 100}


def _answer() -> bytes:
    body = {
        "id": _TOOK.format(0),
        "object": "chat.completion",
        "created": 1700000000,
        "model": "fake",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "word " * 50}, "finish_reason": "stop"}
        ],
        "usage": _USAGE,
    }
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def _chunk(**fields: object) -> bytes:
    shared = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1700000000}
    return _framed(json.dumps({**shared, "model": "fake", **fields}))


def _framed(text: str) -> bytes:
    event = f"data: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def _frames() -> tuple[bytes, ...]:
    def choice(delta: object, reason: str | None = None) -> bytes:
        return _chunk(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])

    words = [choice({"content": "word "}) for _ in range(CHUNKS)]
    return (choice({"role": "assistant", "content": ""}), *words, choice({}, "stop"))


ANSWER = _answer()
_AT = ANSWER.index(b"chatcmpl-") + len("chatcmpl-")
NUMBER = slice(_AT, _AT + 10)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAMES = _frames()
USAGE_FRAME = _chunk(choices=[], usage=_USAGE)
LAST_FRAME = _framed("[DONE]") + b"0\r\n\r\n"


class Provider(asyncio.Protocol):
    """One connection, one request after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        head, found, body = self._pending.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or (length is not None and len(body) < int(length[1])):
            return
        self._pending = b""
        if _IS_STREAMED.search(body):
            self._stream(bool(_WANTS_USAGE.search(body)), PAUSE_S if _IS_SLOW.search(body) else 0.0)
        else:
            began = time.perf_counter()
            self._loop.call_later(SLOW_S, self._say, began) if _IS_SLOW.search(body) else self._say(began)

    def _say(self, began: float) -> None:
        took_us = b"%010d" % ((time.perf_counter() - began) * 1_000_000)
        self._transport.write(ANSWER[: NUMBER.start] + took_us + ANSWER[NUMBER.stop :])

    def _stream(self, wants_usage: bool, pause_s: float) -> None:
        self._transport.write(STREAM_HEAD)
        end = (USAGE_FRAME, LAST_FRAME) if wants_usage else (LAST_FRAME,)
        self._next(iter((*FRAMES, *end)), pause_s)

    def _next(self, frames: Iterator[bytes], pause_s: float) -> None:
        """Each frame in a turn of the loop of its own: else the kernel would be given all at once."""
        if (frame := next(frames, None)) is not None and not self._transport.is_closing():
            self._transport.write(frame)
            self._loop.call_later(pause_s, self._next, frames, pause_s)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=1024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(json.dumps({"event": "listening", "url": url, "pid": os.getpid()}), flush=True)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
