"""Text that some database refuses is cleaned here, once, before a row is accepted.

Takes a record with any text a model or a client can produce; gives one that every sink can store:
no NUL, no lone surrogate, no column above its bound. Numbers and money are never touched.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

from msgspec import structs

from .record import FIXED_BYTES, MAX_TAGS, MAX_TEXT, TEXT_LIMITS, UsageRecord, all_text, row_bytes

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
    return _fit(tags if isinstance(tags, dict) else {"value": tags})


def sanitise(record: UsageRecord) -> UsageRecord:
    """``record`` as every sink can store it; the same object when nothing had to change."""
    return record if _is_clean_at_sight(record, all_text(record)) else _cleaned(record)


def sanitised(record: UsageRecord) -> tuple[UsageRecord, int]:
    """What ``sanitise`` makes of ``record``, and its ``row_bytes``: of most rows one look tells both."""
    text = all_text(record)
    if _is_clean_at_sight(record, text):
        return record, FIXED_BYTES + len(text)
    record = _cleaned(record)
    return record, row_bytes(record)


def _cleaned(record: UsageRecord) -> UsageRecord:
    changes: dict[str, Any] = {}
    for name, limit in TEXT_LIMITS.items():
        text = getattr(record, name)
        if isinstance(text, str):
            cleaned = _clean_column(name, text, limit)
            if cleaned is not text:
                changes[name] = cleaned
    return structs.replace(record, **changes) if changes else record


def without_texts(record: UsageRecord) -> UsageRecord:
    """``record`` with its ids, times, counts and money, and of its texts only the states."""
    blank: dict[str, Any] = dict.fromkeys(TEXT_LIMITS.keys() - _STATES)
    return structs.replace(record, **{**blank, "request_id": "", "endpoint": ""})


def _is_clean_at_sight(record: UsageRecord, text: str) -> bool:
    """Whether one look at all its ``text`` tells that nothing has to change, as it does for most rows."""
    return len(text) <= MAX_TEXT and record.tags is None and text.isascii() and "\x00" not in text


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


class _Cleaner:
    """Cleans values of any size in bounded time: of more of them than could ever fit nothing is looked at."""

    def __init__(self) -> None:
        self._left = MAX_TAGS

    def clean(self, value: Any, depth: int) -> Any:
        """``value`` with every text cleaned, numbers that JSON lacks as text, depth and number bounded."""
        self._left -= 1
        if isinstance(value, str):
            return clean_text(value, MAX_TAGS)
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int):
            return value if abs(value) < 2**63 else clean_text(_digits(value), MAX_TAGS)
        if isinstance(value, float):
            return value if value - value == 0 else str(value)
        return self._clean_nested(value, depth)

    def _clean_nested(self, value: Any, depth: int) -> Any:
        if depth >= _MAX_DEPTH or self._left <= 0:
            return _CUT
        if isinstance(value, dict):
            some = islice(value.items(), self._left)
            return {clean_text(str(key), MAX_TAGS): self.clean(each, depth + 1) for key, each in some}
        if isinstance(value, (list, tuple)):
            return [self.clean(each, depth + 1) for each in value[: self._left]]
        return clean_text(str(value), MAX_TAGS)


def _digits(value: int) -> str:
    return hex(value)  # str() of a huge int is refused by the interpreter; hex() never is


def _fit(tags: dict[Any, Any]) -> str:
    """The first members that fit, one after the other; each is cleaned and dumped once."""
    kept: list[str] = []
    room = MAX_TAGS - len(_dump({_CUT: len(tags)}).encode())
    cleaner = _Cleaner()
    for key, value in tags.items():
        member = _dump({clean_text(str(key), MAX_TAGS): cleaner.clean(value, 1)})[1:-1]
        size = len(member.encode()) + 1
        if size > room and not _is_last_that_fits(len(kept), len(tags), size, room):
            return _object([*kept, _dump({_CUT: len(tags) - len(kept)})[1:-1]])
        kept.append(member)
        room -= size
    return _object(kept)


def _is_last_that_fits(kept: int, members: int, size: int, room: int) -> bool:
    """The last member may use what was kept free for the count of those that are left out."""
    return kept == members - 1 and size <= room + len(_dump({_CUT: members}).encode()) - 2


def _object(members: list[str]) -> str:
    return "{" + ",".join(members) + "}"


def _dump(tags: dict[str, Any]) -> str:
    return json.dumps(tags, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
