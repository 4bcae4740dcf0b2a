"""Text that some database refuses is cleaned here, once, before a row is accepted.

Takes a record with any text a model or a client can produce; gives one that every sink can store:
no NUL, no lone surrogate, no column above its bound. Numbers and money are never touched.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from .record import MAX_TAGS, TEXT_LIMITS, UsageRecord

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_MAX_DEPTH = 16
_CUT = "…"
_STATES = {"status", "end_reason", "usage_source"}


def clean_text(text: str, limit: int) -> str:
    """``text`` without NUL and lone surrogates, at most ``limit`` characters long."""
    if not text.isascii() or "\x00" in text:
        text = _UNSTORABLE.sub(_REPLACEMENT, text)
    return text if len(text) <= limit else text[: limit - 1] + _CUT


def tags_text(tags: Any) -> str | None:
    """``tags`` as the text of a JSON object within its bound, or None when there is nothing to keep.

    Keys that no longer fit are left out and counted under ``"…"``; a value that is no object is kept
    under ``"value"``.
    """
    if tags is None or tags == {}:
        return None
    cleaned = _clean_value(tags, 0)
    if not isinstance(cleaned, dict):
        cleaned = {"value": cleaned}
    return _fit(cleaned)


def sanitise(record: UsageRecord) -> UsageRecord:
    """``record`` as every sink can store it; the same object when nothing had to change."""
    changes: dict[str, Any] = {}
    for name, limit in TEXT_LIMITS.items():
        text = getattr(record, name)
        if isinstance(text, str):
            cleaned = _clean_column(name, text, limit)
            if cleaned is not text:
                changes[name] = cleaned
    return replace(record, **changes) if changes else record


def without_texts(record: UsageRecord) -> UsageRecord:
    """``record`` with its ids, times, counts and money, and of its texts only the states."""
    blank: dict[str, Any] = dict.fromkeys(TEXT_LIMITS.keys() - _STATES)
    return replace(record, **{**blank, "request_id": "", "endpoint": ""})


def _clean_column(name: str, text: str, limit: int) -> str | None:
    if name == "tags":
        return _clean_tags(text)
    cleaned = clean_text(text, limit)
    return _cut_to_bytes(cleaned, limit) if name == "error_message" else cleaned


def _cut_to_bytes(text: str, limit: int) -> str:
    if text.isascii() or len(text.encode()) <= limit:
        return text
    return text.encode()[: limit - len(_CUT.encode())].decode(errors="ignore") + _CUT


def _clean_tags(text: str) -> str | None:
    is_clean = "\\u" not in text and not _UNSTORABLE.search(text)
    if is_clean and len(text.encode()) <= MAX_TAGS and _is_object(text):
        return text
    try:
        return tags_text(json.loads(text))
    except (ValueError, RecursionError):
        return tags_text({"text": text})


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=_refuse_constant), dict)
    except (ValueError, RecursionError):
        return False


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _clean_value(value: Any, depth: int) -> Any:
    """``value`` with every text cleaned, numbers that JSON lacks as text, and depth bounded."""
    if isinstance(value, str):
        return clean_text(value, MAX_TAGS)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else clean_text(_digits(value), MAX_TAGS)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if depth >= _MAX_DEPTH:
        return _CUT
    if isinstance(value, dict):
        return {clean_text(str(key), MAX_TAGS): _clean_value(each, depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean_value(each, depth + 1) for each in value]
    return clean_text(str(value), MAX_TAGS)


def _digits(value: int) -> str:
    return hex(value)  # str() of a huge int is refused by the interpreter; hex() never is


def _fit(tags: dict[str, Any]) -> str:
    kept = dict(tags)
    text = _dump(kept)
    while len(text.encode()) > MAX_TAGS and kept:
        kept.popitem()
        text = _dump({**kept, _CUT: len(tags) - len(kept)})
    return text


def _dump(tags: dict[str, Any]) -> str:
    return json.dumps(tags, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
