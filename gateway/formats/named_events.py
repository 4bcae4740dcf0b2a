"""Streams whose events say what they are: by their ``event`` line, or by ``type`` in what they carry."""

from __future__ import annotations

import re

from ..providers.base import Event
from ..providers.redaction import error_message
from .base import object_in

_NAME = re.compile(rb"(?:^|[\r\n])event: ?([^\r\n]*)")


def event_name(raw: bytes) -> str:
    """The name of the event ``raw``; empty for one without, such as a comment."""
    if match := _NAME.search(raw):
        return match[1].decode("utf-8", "replace").strip()
    name = object_in(raw).get("type")
    return name if isinstance(name, str) else ""


def error_in(raw: bytes, name: str, api_key: str) -> Event | None:
    """``raw`` as an error, if it is one: by its name, or without one by what it carries."""
    payload = object_in(raw) if name in ("", "error") else {}
    if name != "error" and not payload.get("error"):
        return None
    return Event(raw, is_error=True, error_message=error_message(payload, api_key), has_text=False)
