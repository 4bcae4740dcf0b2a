"""What the SDK gives, as the bytes of OpenAI's format: answers and events.

Pure. Takes the SDK's objects, which are pydantic's; a count in them is what the provider gave.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import ProviderMalformed

CHAT = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def answer_of(endpoint: str, result: Any) -> dict[str, Any]:
    """A whole answer. Raises ``ProviderMalformed``."""
    return _chat(result) if endpoint == CHAT else _as_it_came(result)


def event_of(endpoint: str, chunk: Any) -> bytes:
    """One event of a stream, with the empty line behind it. Raises ``ProviderMalformed``."""
    if endpoint == CHAT:
        return b"data: " + json.dumps(_chat(chunk)).encode() + b"\n\n"
    payload = _as_it_came(chunk)
    return f"event: {payload.get('type')}\ndata: {json.dumps(payload)}\n\n".encode()


def ends(chunk: Any) -> bool:
    """Whether ``chunk`` says of a choice why it ended."""
    choices = getattr(chunk, "choices", None) or ()
    return any(getattr(choice, "finish_reason", None) is not None for choice in choices)


def _chat(result: Any) -> dict[str, Any]:
    """The SDK writes null for whatever its provider did not say; only what clients look for stays. No prompt
    has no tokens: where all counts are 0, nobody gave any."""
    told = _dumped(result, exclude_none=True)
    if not any(told.get("usage", {}).get(name) for name in _COUNTS):
        told.pop("usage", None)
    for choice in told.get("choices") or ():
        choice.setdefault("finish_reason", None)
        if "message" in choice:
            choice["message"].setdefault("content", None)
    return told


def _as_it_came(result: Any) -> dict[str, Any]:
    return _dumped(result, exclude_unset=True)


def _dumped(result: Any, **without: bool) -> dict[str, Any]:
    dump = getattr(result, "model_dump", None)
    if dump is None:
        raise ProviderMalformed("The provider answered with something else than its endpoint promises.")
    dumped: dict[str, Any] = dump(mode="json", by_alias=True, warnings=False, **without)
    return dumped
