"""A chat completion, told as an answer in messages, at once or in a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..formats.base import object_in
from ..providers.base import Event
from ..token_usage import TokenUsage
from .base import Json, NotTranslatable, an_object, arguments_of, objects, text_of

REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def message_answer(chat: Mapping[str, Any], usage: TokenUsage | None) -> Json:
    """``chat`` as an answer in messages."""
    choice = next(iter(objects(chat.get("choices"))), {})
    said = an_object(choice.get("message"))
    text = text_of(said.get("content")) or str(said.get("refusal") or "")
    content: list[Json] = [{"type": "text", "text": text}] if text else []
    content += [_tool_use(call) for call in objects(said.get("tool_calls"))]
    return {**_message(chat, content, _counts(usage)), "stop_reason": _reason(choice.get("finish_reason"))}


class MessageEvents:
    """One stream of a chat completion as the events of messages. See ``EventTranslation``."""

    def __init__(self) -> None:
        self._has_begun = False
        self._blocks = 0
        self._open: tuple[str, str] | None = None
        self._calls: dict[str, int] = {}
        self._reason: object = None
        self._usage = TokenUsage()

    def events(self, event: Event) -> list[Event]:
        """See ``EventTranslation``."""
        if event.usage is not None:
            self._usage = self._usage.updated(event.usage)
        if event.is_error:
            return [event]
        if event.is_done:
            return [*map(Event, self._end()), Event(_event("message_stop"), is_done=True, has_text=False)]
        told = [Event(raw) for raw in self._told(object_in(event.raw))]
        if event.usage is not None:  # nothing is said of it before the end, but it is known
            told.append(Event(b"", event.usage, has_text=False))
        return told

    def _told(self, chunk: Json) -> Iterator[bytes]:
        choices = objects(chunk.get("choices"))
        if not self._has_begun and (choices or chunk.get("id")):
            self._has_begun = True
            yield _event("message_start", message={**_message(chunk, [], _counts(None)), "stop_reason": None})
        for choice in choices[:1]:
            delta = an_object(choice.get("delta"))
            self._reason = choice.get("finish_reason") or self._reason
            if text := delta.get("content") or delta.get("refusal"):
                yield from self._in_block("text", "", {"type": "text", "text": ""})
                yield self._delta(self._blocks - 1, {"type": "text_delta", "text": text})
            for call in objects(delta.get("tool_calls")):
                yield from self._call(call)

    def _call(self, call: Json) -> Iterator[bytes]:
        number, function = str(call.get("index")), an_object(call.get("function"))
        if number not in self._calls:
            block: Json = {
                "type": "tool_use",
                "id": call.get("id"),
                "name": function.get("name"),
                "input": {},
            }
            yield from self._in_block("tool_use", number, block)
            self._calls[number] = self._blocks - 1
        if piece := function.get("arguments"):
            delta = {"type": "input_json_delta", "partial_json": piece}
            yield self._delta(self._calls[number], delta)

    def _in_block(self, kind: str, number: str, block: Json) -> Iterator[bytes]:
        if self._open == (kind, number):
            return
        yield from self._close()
        self._open = (kind, number)
        yield _event("content_block_start", index=self._blocks, content_block=block)
        self._blocks += 1

    def _close(self) -> Iterator[bytes]:
        if self._open is not None:
            self._open = None
            yield _event("content_block_stop", index=self._blocks - 1)

    def _end(self) -> Iterator[bytes]:
        yield from self._close()
        delta = {"stop_reason": _reason(self._reason), "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage=_counts(self._usage))

    def _delta(self, index: int, delta: Json) -> bytes:
        return _event("content_block_delta", index=index, delta=delta)


def _message(chat: Mapping[str, Any], content: list[Json], usage: Json) -> Json:
    return {
        "id": chat.get("id"),
        "type": "message",
        "role": "assistant",
        "model": chat.get("model"),
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _tool_use(call: Json) -> Json:
    function = an_object(call.get("function"))
    try:
        given = arguments_of(function.get("arguments"))
    except NotTranslatable:  # the model's own slip: its client sees what it wrote
        given = {"arguments": function.get("arguments")}
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}


def _reason(finish_reason: object) -> str:
    return REASONS.get(str(finish_reason), "end_turn")


def _counts(usage: TokenUsage | None) -> Json:
    known = usage or TokenUsage()
    cached = min(known.cached_tokens or 0, known.prompt_tokens or 0)
    return {
        "input_tokens": (known.prompt_tokens or 0) - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": known.completion_tokens or 0,
    }


def _event(name: str, **members: Any) -> bytes:
    carried = json.dumps({"type": name, **members}).encode()
    return b"event: " + name.encode() + b"\ndata: " + carried + b"\n\n"
