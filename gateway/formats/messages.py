"""Anthropic's messages: events with names, counts at the beginning and at the end, errors of their own shape.

What is read from a cache and what is written into one are parts of the prompt here, as they are at OpenAI,
and not counts beside it: ``cached_tokens`` is what was read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import BadRequest, GatewayError
from ..inference_request import MAX_NAME, Members
from ..providers.base import Event
from ..token_usage import TokenUsage, count_in, total
from .base import Format, member, object_in
from .named_events import error_in, event_name

_PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class MessagesFormat(Format):
    """``/v1/messages``."""

    prompt_members = ("system", "messages")
    output_members = ("max_tokens",)
    passed_headers = ("anthropic-version", "anthropic-beta")
    is_user_opaque = True
    keep_alive = b'event: ping\ndata: {"type": "ping"}\n\n'

    def check(self, body: Members) -> None:
        """See ``Format``."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            message = "messages is a list of at least one message."
            raise BadRequest(message, code="invalid_messages", param="messages")

    def user(self, body: Members) -> str | None:
        """``metadata.user_id`` is opaque: programs put there what they like."""
        metadata = body.get("metadata")
        name = metadata.get("user_id") if isinstance(metadata, dict) else None
        return name if isinstance(name, str) and 0 < len(name) <= MAX_NAME else None

    def usage(self, payload: Mapping[str, Any]) -> TokenUsage | None:
        """See ``Format``."""
        return _read_usage(payload.get("usage"))

    def read_event(self, raw: bytes, api_key: str) -> Event:
        """See ``Format``."""
        name = event_name(raw)
        if name == "content_block_delta":
            return Event(raw)
        if (error := error_in(raw, name, api_key)) is not None:
            return error
        usage = None
        if name == "message_start":
            usage = self.usage(member(object_in(raw), "message"))
        elif name == "message_delta":
            usage = self.usage(object_in(raw))
        return Event(raw, usage, is_done=name == "message_stop", has_text=False)

    def error(self, problem: GatewayError) -> dict[str, Any]:
        """In Anthropic's shape, with the stable code in it."""
        kind = _TYPES.get(problem.status) or ("api_error" if problem.status >= 500 else _TYPES[400])
        return {"type": "error", "error": {"type": kind, "message": problem.message, "code": problem.code}}

    def error_event(self, problem: GatewayError, last: bytes = b"") -> bytes:
        """See ``Format``."""
        return b"event: error\ndata: " + json.dumps(self.error(problem)).encode() + b"\n\n"


class TokenCountFormat(MessagesFormat):
    """``/v1/messages/count_tokens``, which is no call."""

    has_stream = False


def _read_usage(usage: object) -> TokenUsage | None:
    """A prompt of none is no count: the end of a stream may leave out what its beginning has said."""
    prompt = total(*(count_in(usage, name) for name in _PROMPT))
    completion = count_in(usage, "output_tokens")
    if not prompt and completion is None:
        return None
    cached = count_in(usage, "cache_read_input_tokens")
    return TokenUsage(prompt or None, completion, cached_tokens=cached if prompt else None, adds_up=True)


MESSAGES = MessagesFormat()
COUNT_TOKENS = TokenCountFormat()
