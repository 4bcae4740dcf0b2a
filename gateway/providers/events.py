"""What one server-sent event of an OpenAI-compatible stream means.

Takes its bytes; gives an ``Event``. Parses JSON only where counts, an error or the end may be: most
events are passed on unread.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..sse import event_data
from ..token_usage import read_usage
from .base import Event
from .redaction import error_message

# OpenAI sends "usage": null in every event once the counts are asked for; those need no parsing either.
_USAGE = re.compile(rb'"usage"(?!\s*:\s*null\b)')
_ERROR = re.compile(rb'"error"(?!\s*:\s*null\b)')


def read_event(raw: bytes, api_key: str) -> Event:
    """``raw`` as an event; ``api_key`` is taken out of an error's text. Never raises."""
    if not _may_tell(raw):
        return Event(raw)
    data = event_data(raw)
    if data.strip() == b"[DONE]":
        return Event(raw, is_done=True)
    return _from_payload(raw, _object_in(data), api_key)


def _may_tell(raw: bytes) -> bool:
    """Whether ``raw`` may be more than a piece of the answer. Runs for every event: plain searches first."""
    return (
        b"[DONE]" in raw
        or (b'"usage"' in raw and _USAGE.search(raw) is not None)
        or (b'"error"' in raw and _ERROR.search(raw) is not None)
    )


def is_error(payload: dict[str, Any]) -> bool:
    """Whether ``payload`` tells of a failure instead of an answer, whatever its HTTP status was."""
    return bool(payload.get("error")) and not payload.get("choices")


def _from_payload(raw: bytes, payload: dict[str, Any], api_key: str) -> Event:
    if is_error(payload):
        return Event(raw, is_error=True, error_message=error_message(payload, api_key))
    usage = payload.get("usage")
    is_usage_only = isinstance(usage, dict) and payload.get("choices") == []
    return Event(raw, read_usage(usage), is_usage_only)


def _object_in(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``; an empty one for anything else, which is the client's to judge."""
    try:
        payload = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}
