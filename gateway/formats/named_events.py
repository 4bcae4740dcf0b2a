"""Streams whose events say what they are: by their ``event`` line, or by ``type`` in what they carry."""

from __future__ import annotations

import re

from .base import object_in

_NAME = re.compile(rb"(?:^|[\r\n])event: ?([^\r\n]*)")


def event_name(raw: bytes) -> str:
    """The name of the event ``raw``; empty for one without, such as a comment."""
    if match := _NAME.search(raw):
        return match[1].decode("utf-8", "replace").strip()
    name = object_in(raw).get("type")
    return name if isinstance(name, str) else ""
