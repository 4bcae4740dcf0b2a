"""Responses: events with names; the last holds the whole response, with its counts, however it ended."""

from __future__ import annotations

import json
import re

from ..errors import GatewayError
from ..inference_request import Members
from ..providers.base import Event
from ..providers.redaction import error_message
from ..token_usage import INPUT_OUTPUT, read_usage
from .base import MAX_LARGE_EVENT_BYTES, Format, member, object_in
from .named_events import error_in, event_name

_LAST = ("response.completed", "response.failed", "response.incomplete")
_NUMBER = re.compile(rb'"sequence_number"\s*:\s*([0-9]{1,15})')


class ResponsesFormat(Format):
    """``/v1/responses``."""

    prompt_members = ("input", "instructions")
    output_members = ("max_output_tokens",)
    counts = INPUT_OUTPUT
    max_event_bytes = MAX_LARGE_EVENT_BYTES

    def check(self, body: Members) -> None:
        """An input may be missing: a prompt kept by the provider, or an earlier response, stands for it."""

    def read_event(self, raw: bytes, api_key: str) -> Event:
        """See ``Format``. A text comes in pieces, and once more as a whole, which is not counted."""
        name = event_name(raw)
        if name.endswith(".delta"):
            return Event(raw)
        if name in _LAST:
            return self._last(raw, name, api_key)
        return error_in(raw, name, api_key) or Event(raw, has_text=False)

    def _last(self, raw: bytes, name: str, api_key: str) -> Event:
        response = member(object_in(raw), "response")
        is_failure = name == "response.failed"
        return Event(
            raw,
            read_usage(response.get("usage"), self.counts),
            is_done=True,
            is_error=is_failure,
            error_message=error_message(response, api_key) if is_failure else "",
            has_text=False,
        )

    def error_event(self, problem: GatewayError, last: bytes = b"") -> bytes:
        """Its number follows that of ``last``."""
        found = _NUMBER.search(last)
        told = {
            "type": "error",
            "code": problem.code,
            "message": problem.message,
            "param": problem.param,
            "sequence_number": int(found[1]) + 1 if found else 0,
        }
        return b"event: error\ndata: " + json.dumps(told).encode() + b"\n\n"


RESPONSES = ResponsesFormat()
