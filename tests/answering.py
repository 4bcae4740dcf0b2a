"""What a provider says, in its own format: texts and calls of tools, at once or in a stream, always with the
same counts. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

Body = dict[str, Any]
PROMPT, CACHED, COMPLETION = 40, 30, 40
COST = Decimal("0.000413000")
"""Of these counts at 1 USD a million for the prompt, 0.1 for what was cached of it, 10 for the answer."""
PIECE = 5
"""Characters of a text, or of a tool's arguments, in one event."""


class ToolCall(NamedTuple):
    """The model wants ``name`` to be called with ``given``."""

    id: str
    name: str
    given: Body

    @property
    def arguments(self) -> str:
        return json.dumps(self.given)


@dataclass(frozen=True)
class Wire:
    """One format: an answer as a whole, and as the events of a stream."""

    answer: Callable[[str, Sequence[ToolCall]], Body]
    events: Callable[[str, Sequence[ToolCall]], Iterator[bytes]]


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def _data(payload: Body) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def _named(name: str, /, **members: Any) -> bytes:
    return b"event: " + name.encode() + b"\n" + _data({"type": name, **members})


# --- chat completions


def _chat(kind: str, choices: list[Body], **members: Any) -> Body:
    return {"id": "c1", "object": kind, "created": 1, "model": "m", "choices": choices, **members}


def _chat_counts() -> Body:
    return {
        "prompt_tokens": PROMPT,
        "completion_tokens": COMPLETION,
        "total_tokens": PROMPT + COMPLETION,
        "prompt_tokens_details": {"cached_tokens": CACHED},
    }


def _chat_call(call: ToolCall, arguments: str) -> Body:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _chat_reason(calls: Sequence[ToolCall]) -> str:
    return "tool_calls" if calls else "stop"


def _completion(text: str, calls: Sequence[ToolCall]) -> Body:
    said: Body = {"role": "assistant", "content": text or None}
    if calls:
        said["tool_calls"] = [_chat_call(call, call.arguments) for call in calls]
    choice = {"index": 0, "message": said, "finish_reason": _chat_reason(calls)}
    return _chat("chat.completion", [choice], usage=_chat_counts())


def _chunks(text: str, calls: Sequence[ToolCall]) -> Iterator[bytes]:
    yield _chunk({"role": "assistant", "content": ""})
    for piece in _pieces(text):
        yield _chunk({"content": piece})
    for index, call in enumerate(calls):
        yield _chunk({"tool_calls": [{"index": index, **_chat_call(call, "")}]})
        for piece in _pieces(call.arguments):
            yield _chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield _chunk({}, _chat_reason(calls))
    yield _data(_chat("chat.completion.chunk", [], usage=_chat_counts()))
    yield b"data: [DONE]\n\n"


def _chunk(delta: Body, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return _data(_chat("chat.completion.chunk", [choice], usage=None))


# --- messages


def _message(content: list[Body], reason: str | None, output_tokens: int) -> Body:
    usage = {
        "input_tokens": PROMPT - CACHED,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": CACHED,
        "output_tokens": output_tokens,
    }
    said = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": content}
    return {**said, "stop_reason": reason, "stop_sequence": None, "usage": usage}


def _use(call: ToolCall, given: Body) -> Body:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": given}


def _message_reason(calls: Sequence[ToolCall]) -> str:
    return "tool_use" if calls else "end_turn"


def _whole_message(text: str, calls: Sequence[ToolCall]) -> Body:
    content: list[Body] = [{"type": "text", "text": text}] if text else []
    content += [_use(call, call.given) for call in calls]
    return _message(content, _message_reason(calls), COMPLETION)


def _message_events(text: str, calls: Sequence[ToolCall]) -> Iterator[bytes]:
    yield _named("message_start", message=_message([], None, 1))
    yield _named("ping")
    if text:
        deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(text)]
        yield from _block(0, {"type": "text", "text": ""}, deltas)
    for index, call in enumerate(calls, start=int(bool(text))):
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(call.arguments)]
        yield from _block(index, _use(call, {}), deltas)
    reason = {"stop_reason": _message_reason(calls), "stop_sequence": None}
    yield _named("message_delta", delta=reason, usage={"output_tokens": COMPLETION})
    yield _named("message_stop")


def _block(index: int, block: Body, deltas: list[Body]) -> Iterator[bytes]:
    yield _named("content_block_start", index=index, content_block=block)
    for delta in deltas:
        yield _named("content_block_delta", index=index, delta=delta)
    yield _named("content_block_stop", index=index)


# --- responses


def _response(status: str, output: list[Body], usage: Body | None) -> Body:
    fixed = {"id": "r1", "object": "response", "created_at": 1, "model": "m", "error": None}
    wishes = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return {**fixed, **wishes, "status": status, "output": output, "usage": usage}


def _response_counts() -> Body:
    return {
        "input_tokens": PROMPT,
        "input_tokens_details": {"cached_tokens": CACHED},
        "output_tokens": COMPLETION,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": PROMPT + COMPLETION,
    }


def _said(text: str) -> Body:
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    return {"type": "message", "id": "o0", "role": "assistant", "status": "completed", "content": content}


def _function_call(call: ToolCall, arguments: str) -> Body:
    own = {"type": "function_call", "id": f"item-{call.id}", "call_id": call.id, "status": "completed"}
    return {**own, "name": call.name, "arguments": arguments}


def _whole_response(text: str, calls: Sequence[ToolCall]) -> Body:
    output = [_said(text)] if text else []
    output += [_function_call(call, call.arguments) for call in calls]
    return _response("completed", output, _response_counts())


def _response_events(text: str, calls: Sequence[ToolCall]) -> Iterator[bytes]:
    for number, (name, members) in enumerate(_story(text, calls)):
        yield _named(name, **members, sequence_number=number)


def _story(text: str, calls: Sequence[ToolCall]) -> Iterator[tuple[str, Body]]:
    yield "response.created", {"response": _response("in_progress", [], None)}
    if text:
        yield from _spoken(text)
    for index, call in enumerate(calls, start=int(bool(text))):
        yield from _called(index, call)
    yield "response.completed", {"response": _whole_response(text, calls)}


def _spoken(text: str) -> Iterator[tuple[str, Body]]:
    at = {"item_id": "o0", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    yield "response.output_item.added", {"output_index": 0, "item": _said("")}
    yield "response.content_part.added", {**at, "part": part}
    for piece in _pieces(text):
        yield "response.output_text.delta", {**at, "delta": piece, "logprobs": []}
    yield "response.output_text.done", {**at, "text": text, "logprobs": []}
    yield "response.content_part.done", {**at, "part": {**part, "text": text}}
    yield "response.output_item.done", {"output_index": 0, "item": _said(text)}


def _called(index: int, call: ToolCall) -> Iterator[tuple[str, Body]]:
    at = {"item_id": f"item-{call.id}", "output_index": index}
    yield "response.output_item.added", {"output_index": index, "item": _function_call(call, "")}
    for piece in _pieces(call.arguments):
        yield "response.function_call_arguments.delta", {**at, "delta": piece}
    done = {**at, "name": call.name, "arguments": call.arguments}
    yield "response.function_call_arguments.done", done
    yield "response.output_item.done", {"output_index": index, "item": _function_call(call, call.arguments)}


WIRES = {
    "/v1/chat/completions": Wire(_completion, _chunks),
    "/v1/messages": Wire(_whole_message, _message_events),
    "/v1/responses": Wire(_whole_response, _response_events),
}
