"""How many tokens a call took when its provider does not say: its characters, divided by four.

Pure. Takes the members of a request and the bytes of an answer or of a stream's events; gives counts that are
good enough to see a trend and never pass for the provider's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .token_usage import TokenUsage

CHARACTERS_PER_TOKEN = 4
_NO_TEXT = ("image", "document", "thinking", "redacted_thinking")
"""Blocks of messages whose characters say nothing of their tokens."""

_TEXT = re.compile(
    rb'"(?:content|reasoning_content|refusal|arguments|text|delta|partial_json|thinking)"'
    rb'\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"',
    re.DOTALL,
)
"""A member that holds text of the model, and its value as it is written in JSON."""


def estimate(prompt_tokens: int, text_characters: int) -> TokenUsage:
    """The usage of a call whose answer has so many characters of text."""
    completion_tokens = _tokens(text_characters)
    return TokenUsage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)


def prompt_tokens(members: Mapping[str, Any], names: Sequence[str] = ("messages", "input")) -> int:
    """The tokens of the texts below ``names``, or of what is tokens there already. Pictures and sound have no
    characters and count for nothing."""
    characters, given = 0, 0
    for name in names:
        for each in _texts_below(members, name):
            characters += _characters(each)
            given += _given_tokens(each)
    return _tokens(characters) + given


def body_tokens(members: Mapping[str, Any], names: Sequence[str]) -> int:
    """The tokens of all that is written below ``names``, tools and their results included, for a client that
    plans by it. Pictures, documents and thoughts, wherever they are, count for nothing."""
    characters, waiting = 0, [members.get(name) for name in names]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict) and value.get("type") not in _NO_TEXT:
            waiting += (*value.keys(), *value.values())
    return _tokens(characters)


def text_characters(raw: bytes) -> int:
    """The characters of the model's text in ``raw``, a plain answer or one event of a stream.

    Runs for every event, so it searches for the members that hold text instead of parsing the JSON.
    """
    count = 0
    for written in _TEXT.findall(raw, max(0, raw.find(b'"delta"'))):
        is_plain = written.isascii() and b"\\" not in written
        count += len(written) if is_plain else _unescaped(written)
    return count


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def _texts_below(members: Mapping[str, Any], name: str) -> list[Any]:
    value = members.get(name)
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, dict)] if name == "messages" else values


def _characters(value: object) -> int:
    """Of a text, of a message, or of a document."""
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, dict):
        return 0
    content, text = value.get("content"), value.get("text")
    if isinstance(content, list):
        return sum(map(len, _part_texts(content)))
    return (len(content) if isinstance(content, str) else 0) + (len(text) if isinstance(text, str) else 0)


def _part_texts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str):
            yield text


def _given_tokens(value: object) -> int:
    """A text may be given as tokens: as a list of numbers, or as several such lists."""
    return len(value) if isinstance(value, list) else int(isinstance(value, int))


def _unescaped(written: bytes) -> int:
    """How many characters the JSON text has that is written as ``written`` between its quotes."""
    try:
        return len(json.loads(b'"%s"' % written))
    except ValueError:  # no JSON after all: its size is as good a guess
        return len(written)
