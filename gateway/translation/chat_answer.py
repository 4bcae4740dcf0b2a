"""An answer in messages, told as a chat completion, at once or in a stream."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ..formats.base import object_in
from ..providers.base import Event
from ..token_usage import TokenUsage
from .base import Json, an_object, objects, text_of

REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def chat_answer(message: Mapping[str, Any], usage: TokenUsage | None) -> Json:
    """``message`` as a chat completion."""
    content = objects(message.get("content"))
    said: Json = {"role": "assistant", "content": _text(content) or None, "refusal": None}
    if thought := "".join(str(block.get("thinking", "")) for block in content):
        said["reasoning_content"] = thought
    if calls := [_tool_call(block) for block in content if block.get("type") == "tool_use"]:
        said["tool_calls"] = calls
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": _reason(message)}
    envelope = _envelope(message, "chat.completion", int(time.time()))
    return {**envelope, "choices": [choice], **_counts(usage)}


class ChatEvents:
    """One stream of messages as chunks of a chat completion. See ``EventTranslation``."""

    def __init__(self) -> None:
        self._message: Json = {}
        self._began_at = int(time.time())
        self._calls: dict[str, int] = {}
        self._usage = TokenUsage()

    def events(self, event: Event) -> list[Event]:
        """See ``EventTranslation``."""
        if event.usage is not None:
            self._usage = self._usage.updated(event.usage)
        if event.is_error:
            return [event]
        if event.is_done:
            return [*self._last_counts(), Event(b"data: [DONE]\n\n", is_done=True)]
        told = self._told(object_in(event.raw))
        if told is None:
            return []
        return [Event(self._chunk([told]), event.usage)]

    def _told(self, payload: Json) -> Json | None:
        kind = payload.get("type")
        if kind == "message_start":
            self._message = an_object(payload.get("message"))
            return _choice({"role": "assistant", "content": ""})
        if kind == "content_block_start":
            return self._begun(str(payload.get("index")), an_object(payload.get("content_block")))
        if kind == "content_block_delta":
            return self._piece(str(payload.get("index")), an_object(payload.get("delta")))
        if kind == "message_delta":
            delta = an_object(payload.get("delta"))
            return _choice({}, _reason(delta) if delta.get("stop_reason") else None)
        return None

    def _begun(self, index: str, block: Json) -> Json | None:
        if block.get("type") != "tool_use":
            return None
        number = self._calls[index] = len(self._calls)
        function = {"name": block.get("name"), "arguments": ""}
        call = {"index": number, "id": block.get("id"), "type": "function", "function": function}
        return _choice({"tool_calls": [call]})

    def _piece(self, index: str, delta: Json) -> Json | None:
        kind = delta.get("type")
        if kind == "text_delta":
            return _choice({"content": delta.get("text")})
        if kind == "thinking_delta":
            return _choice({"reasoning_content": delta.get("thinking")})
        if kind == "input_json_delta" and index in self._calls:
            piece = {"index": self._calls[index], "function": {"arguments": delta.get("partial_json")}}
            return _choice({"tool_calls": [piece]})
        return None

    def _last_counts(self) -> list[Event]:
        counts = _counts(self._usage)
        if not counts:
            return []
        return [Event(self._chunk([], counts), is_usage_only=True, has_text=False)]

    def _chunk(self, choices: list[Json], counts: Json | None = None) -> bytes:
        envelope = _envelope(self._message, "chat.completion.chunk", self._began_at)
        chunk = {**envelope, "choices": choices, **(counts or {})}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _envelope(message: Mapping[str, Any], kind: str, created: int) -> Json:
    return {"id": message.get("id"), "object": kind, "created": created, "model": message.get("model")}


def _choice(delta: Json, finish_reason: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _reason(holder: Mapping[str, Any]) -> str:
    return REASONS.get(str(holder.get("stop_reason")), "stop")


def _text(content: list[Json]) -> str:
    return text_of([block for block in content if block.get("type") == "text"])


def _tool_call(block: Json) -> Json:
    function = {"name": block.get("name"), "arguments": json.dumps(an_object(block.get("input")))}
    return {"id": block.get("id"), "type": "function", "function": function}


def _counts(usage: TokenUsage | None) -> Json:
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return {}
    counts: Json = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.summed().total_tokens,
    }
    if usage.cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return {"usage": counts}
