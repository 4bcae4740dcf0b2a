"""Chat completions, and the older completions, which have the same stream.

Their stream ends with ``[DONE]`` and has its counts, on demand, in an event of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import BadRequest
from ..inference_request import MAX_COUNT, Members, count_in
from ..providers.base import Event
from ..sse import event_data
from .base import Format, object_in

# OpenAI sends "usage": null in every event once the counts are asked for; those need no parsing either.
_USAGE = re.compile(rb'"usage"(?!\s*:\s*null\b)')
_ERROR = re.compile(rb'"error"(?!\s*:\s*null\b)')


class ChatFormat(Format):
    """``/v1/chat/completions``."""

    prompt_members = ("messages",)
    output_members: ClassVar[tuple[str, ...]] = ("max_completion_tokens", "max_tokens")

    def check(self, body: Members) -> None:
        """See ``Format``."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            message = "messages is a list of at least one message."
            raise BadRequest(message, code="invalid_messages", param="messages")

    def choices(self, body: Members) -> int:
        """See ``Format``."""
        return max(1, count_in(body, "n") or 1)

    def shows_usage(self, body: Members) -> bool:
        """See ``Format``."""
        return _stream_options(body).get("include_usage") is True

    def additions(self, body: Members, stream: bool) -> Mapping[str, Any]:
        """The counts are asked for, whether or not the client does."""
        options = _stream_options(body)
        if not stream or options.get("include_usage") is True:
            return {}
        return {"stream_options": {**options, "include_usage": True}}

    def read_event(self, raw: bytes, api_key: str) -> Event:
        """See ``Format``. Parses JSON only where counts, an error or the end may be: most events are passed
        on unread."""
        if not _may_tell(raw):
            return Event(raw)
        if event_data(raw).strip() == b"[DONE]":
            return Event(raw, is_done=True)
        payload = object_in(raw)
        if (failure := self.failure(payload, api_key)) is not None:
            return Event(raw, is_error=True, error_message=failure)
        usage = payload.get("usage")
        is_usage_only = isinstance(usage, dict) and payload.get("choices") == []
        return Event(raw, self.usage(payload), is_usage_only)


class CompletionsFormat(ChatFormat):
    """``/v1/completions``."""

    prompt_members = ("prompt",)
    output_members = ("max_tokens",)

    def check(self, body: Members) -> None:
        """A prompt may be missing: then the model begins a new document."""

    def choices(self, body: Members) -> int:
        """Of each prompt; ``best_of`` are made even if fewer are shown."""
        prompt = body.get("prompt")
        is_many = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
        each = max(count_in(body, "n") or 1, count_in(body, "best_of") or 1)
        return min(each * (len(prompt) if is_many else 1), MAX_COUNT)


def _may_tell(raw: bytes) -> bool:
    """Whether ``raw`` may be more than a piece of the answer; never False for one that is. Runs for every
    event: plain searches first. A name may be written with escapes, which nobody does."""
    return (
        b"[DONE]" in raw
        or b"\\u00" in raw
        or (b'"usage"' in raw and _USAGE.search(raw) is not None)
        or (b'"error"' in raw and _ERROR.search(raw) is not None)
    )


def _stream_options(body: Members) -> Mapping[str, Any]:
    options = body.get("stream_options")
    if options is None:
        return {}
    if not isinstance(options, dict):
        message = "stream_options is an object."
        raise BadRequest(message, code="invalid_stream_options", param="stream_options")
    return options


CHAT = ChatFormat()
COMPLETIONS = CompletionsFormat()
