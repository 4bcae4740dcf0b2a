"""What the fake provider says at each endpoint, in the shapes of the providers whose endpoints they are.

Pure: takes what is to be told of a call; gives an answer as JSON values or bytes, or the events of a stream.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]
Events = Iterator[tuple[bytes, bool]]
"""Events as bytes, and whether each is a piece of the content."""
SOUND = b"RIFF of no sound "


@dataclass(frozen=True)
class Told:
    """What one answer tells. ``words`` are its text; counts that are None are left out."""

    number: int
    body: Body
    model: str
    words: Sequence[str]
    prompt_tokens: int
    completion_tokens: int
    chunks: int
    no_usage: bool = False
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def pieces(self) -> list[str]:
        """The text in at most ``chunks`` pieces, at least one."""
        size = max(1, -(-len(self.words) // max(1, self.chunks)))
        cut = [self.words[start : start + size] for start in range(0, len(self.words), size)]
        return ["".join(f"{word} " for word in each) for each in cut] or [""]

    def usage(self, usage: Body) -> Body:
        """``usage`` as the member of an answer, if there is to be one."""
        return {} if self.no_usage else {"usage": usage}


@dataclass(frozen=True)
class Shape:
    """How one endpoint reads and tells. ``asked``: which members count words, ``limit``: which says how many
    tokens are wanted; without it there are none."""

    asked: Sequence[str]
    limit: str | None
    answer: Callable[[Told], Body | bytes | str]
    events: Callable[[Told], Events] | None = None


def _named(name: str, **members: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n".encode()


def _data(payload: Body) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


# --- completions


def _completion(told: Told, text: str, finish_reason: str | None = "stop") -> Body:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": f"cmpl-fake-{told.number}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": told.model,
        "choices": [choice],
    }


def _old_counts(told: Told) -> Body:
    return {
        "prompt_tokens": told.prompt_tokens,
        "completion_tokens": told.completion_tokens,
        "total_tokens": told.prompt_tokens + told.completion_tokens,
    }


def _completion_answer(told: Told) -> Body:
    return {**_completion(told, told.text), **told.usage(_old_counts(told))}


def _completion_events(told: Told) -> Events:
    for piece in told.pieces():
        yield _data(_completion(told, piece, None)), True
    yield _data(_completion(told, "")), False
    if told.body.get("stream_options") == {"include_usage": True} and not told.no_usage:
        yield _data({**_completion(told, ""), "choices": [], "usage": _old_counts(told)}), False
    yield b"data: [DONE]\n\n", False


# --- responses


def _counts(told: Told) -> Body:
    return {
        "input_tokens": told.prompt_tokens,
        "input_tokens_details": {"cached_tokens": told.cached_tokens or 0},
        "output_tokens": told.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": told.reasoning_tokens or 0},
        "total_tokens": told.prompt_tokens + told.completion_tokens,
    }


def _response(told: Told, status: str, output: list[Body], usage: Body | None) -> Body:
    return {
        "id": f"resp_fake_{told.number}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": told.model,
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }


def _item(told: Told, status: str, content: list[Body]) -> Body:
    name = f"msg_fake_{told.number}"
    return {"type": "message", "id": name, "status": status, "role": "assistant", "content": content}


def _part(text: str) -> Body:
    return {"type": "output_text", "text": text, "annotations": []}


def _response_answer(told: Told) -> Body:
    usage = None if told.no_usage else _counts(told)
    return _response(told, "completed", [_item(told, "completed", [_part(told.text)])], usage)


def _response_events(told: Told) -> Events:
    for number, (name, members, is_piece) in enumerate(_response_story(told)):
        yield _named(name, **members, sequence_number=number), is_piece


def _response_story(told: Told) -> Iterator[tuple[str, Body, bool]]:
    at = {"item_id": f"msg_fake_{told.number}", "output_index": 0, "content_index": 0}
    begun = {"response": _response(told, "in_progress", [], None)}
    text = "".join(told.pieces())
    item = _item(told, "completed", [_part(text)])
    yield "response.created", begun, False
    yield "response.in_progress", begun, False
    yield "response.output_item.added", {"output_index": 0, "item": _item(told, "in_progress", [])}, False
    yield "response.content_part.added", {**at, "part": _part("")}, False
    for piece in told.pieces():
        yield "response.output_text.delta", {**at, "delta": piece, "logprobs": []}, True
    yield "response.output_text.done", {**at, "text": text, "logprobs": []}, False
    yield "response.content_part.done", {**at, "part": _part(text)}, False
    yield "response.output_item.done", {"output_index": 0, "item": item}, False
    usage = None if told.no_usage else _counts(told)
    yield "response.completed", {"response": _response(told, "completed", [item], usage)}, False


# --- what is mostly passed through


def _moderation(told: Told) -> Body:
    result = {"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.01}}
    return {"id": f"modr-fake-{told.number}", "model": told.model, "results": [result]}


def _images(told: Told) -> Body:
    image = base64.b64encode(b"no image").decode()
    made = [{"b64_json": image} for _ in range(min(told.body["n"], 10))]
    return {"created": int(time.time()), "data": made, **told.usage(_counts(told))}


def _image_events(told: Told) -> Events:
    image = {"b64_json": base64.b64encode(b"no image").decode(), "created_at": int(time.time())}
    for index in range(min(told.body["partial_images"], 10)):
        yield _named("image_generation.partial_image", **image, partial_image_index=index), True
    yield _named("image_generation.completed", **image, **told.usage(_counts(told))), False


def _speech(told: Told) -> bytes:
    return SOUND * max(1, told.chunks)


def _speech_events(told: Told) -> Events:
    for _ in range(max(1, told.chunks)):
        yield _named("speech.audio.delta", audio=base64.b64encode(SOUND).decode()), True
    yield _named("speech.audio.done", **told.usage(_counts(told))), False


def _transcription(told: Told) -> Body | str:
    if told.body.get("response_format") == "text":
        return told.text
    return {"text": told.text, **told.usage({"type": "tokens", **_counts(told)})}


def _transcription_events(told: Told) -> Events:
    for piece in told.pieces():
        yield _named("transcript.text.delta", delta=piece), True
    usage = told.usage({"type": "tokens", **_counts(told)})
    yield _named("transcript.text.done", text="".join(told.pieces()), **usage), False


def _ranking(told: Told) -> Body:
    documents = told.body.get("documents")
    count = len(documents) if isinstance(documents, list) else 0
    ranked = [{"index": index, "relevance_score": 1 / (index + 1)} for index in range(count)]
    usage = told.usage({"total_tokens": told.prompt_tokens})
    return {"id": f"rank-fake-{told.number}", "model": told.model, "results": ranked, **usage}


# --- messages


def _message(told: Told, content: list[Body], stop_reason: str | None, output_tokens: int) -> Body:
    cached = told.cached_tokens or 0
    usage = {
        "input_tokens": told.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output_tokens,
    }
    return {
        "id": f"msg_fake_{told.number}",
        "type": "message",
        "role": "assistant",
        "model": told.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        **told.usage(usage),
    }


def _message_answer(told: Told) -> Body:
    return _message(told, [{"type": "text", "text": told.text}], "end_turn", told.completion_tokens)


def _message_events(told: Told) -> Events:
    yield _named("message_start", message=_message(told, [], None, 1)), False
    yield _named("content_block_start", index=0, content_block={"type": "text", "text": ""}), False
    yield _named("ping"), False
    for piece in told.pieces():
        yield _named("content_block_delta", index=0, delta={"type": "text_delta", "text": piece}), True
    yield _named("content_block_stop", index=0), False
    usage = told.usage({"output_tokens": told.completion_tokens})
    yield _named("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, **usage), False
    yield _named("message_stop"), False


def _input_tokens(told: Told) -> Body:
    return {"input_tokens": told.prompt_tokens}


SHAPES = {
    "/v1/completions": Shape(("prompt",), "max_tokens", _completion_answer, _completion_events),
    "/v1/responses": Shape(
        ("input", "instructions"), "max_output_tokens", _response_answer, _response_events
    ),
    "/v1/moderations": Shape(("input",), None, _moderation),
    "/v1/images/generations": Shape(("prompt",), "fake_tokens", _images, _image_events),
    "/v1/audio/speech": Shape(("input",), "fake_tokens", _speech, _speech_events),
    "/v1/audio/transcriptions": Shape(
        ("file", "prompt"), "fake_tokens", _transcription, _transcription_events
    ),
    "/v1/rerank": Shape(("query", "documents"), None, _ranking),
    "/v1/messages": Shape(("system", "messages"), "max_tokens", _message_answer, _message_events),
    "/v1/messages/count_tokens": Shape(("system", "messages"), None, _input_tokens),
}
