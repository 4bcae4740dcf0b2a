"""The body of a call: read as JSON, passed on as the bytes it came as.

Takes the raw bytes of a request; gives its top-level members and, on demand, the same text with single
members replaced. What nobody asked to change keeps every byte: order, spaces, digits, escapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, NoReturn

import msgspec

from .errors import BadRequest

MAX_MEMBERS = 1000
"""Top-level members; no endpoint knows a tenth of them, and millions would hold up the loop."""

_SPACE = r"[ \t\n\r]*"
_OPENING = re.compile(rf"{_SPACE}\{{{_SPACE}(?P<closed>\}}{_SPACE})?")
_PLAIN_NAME = re.compile(rf'"([^"\\\x00-\x1f]*)"{_SPACE}:{_SPACE}')
_PLAIN_VALUE = re.compile(rf'{_SPACE}:{_SPACE}("[^"\\]*")')
_COLON = re.compile(rf"{_SPACE}:{_SPACE}")
_BEHIND = re.compile(rf"{_SPACE}(?:,{_SPACE}|(?P<closed>\}}{_SPACE}))")


class _Member(NamedTuple):
    """One top-level member; its value is ``text[start:end]``."""

    key: str
    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class CallBody:
    """One JSON object. ``members`` holds the last of several members of one name."""

    text: str = field(repr=False)
    members: dict[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes) -> CallBody:
        """The body in ``raw``. Raises ``BadRequest`` with the code ``invalid_json`` or ``invalid_body``."""
        text = _decoded(raw)
        members = _read_fast(text)
        if members is None:
            members = {member.key: member.value for member in _read(text)}
        return cls(text, members)

    def get(self, key: str) -> Any:
        """The value of the top-level member ``key``, or None."""
        return self.members.get(key)

    def with_members(self, changes: Mapping[str, Any]) -> bytes:
        """The body with every member named in ``changes`` replaced, or added at the end where it is missing.

        All members of one name are replaced, since readers differ in which of them they take.
        """
        try:
            dumped = {key: _ENCODER.encode(value) for key, value in changes.items()}
        except RecursionError:
            raise _invalid_json("The request body is nested too deeply.") from None
        return "".join(self._pieces(dumped)).encode()

    def _pieces(self, dumped: dict[str, str]) -> Iterator[str]:
        done = 0
        for key, start, end in self._spans(dumped):
            yield self.text[done:start]
            yield dumped[key]
            done = end
        added = [f"{json.dumps(key)}: {value}" for key, value in dumped.items() if key not in self.members]
        if added:
            brace = self.text.rindex("}")
            yield self.text[done:brace]
            yield ("," if self.members else "") + ",".join(added)
            done = brace
        yield self.text[done:]

    def _spans(self, names: Collection[str]) -> list[tuple[str, int, int]]:
        """Where the values of the members ``names`` stand, in the order of the text."""
        present = [name for name in names if name in self.members]
        if len(present) == 1 and (span := self._span_at_sight(present[0])):
            return [(present[0], *span)]
        found = _read(self.text) if present else ()
        return [(member.key, member.start, member.end) for member in found if member.key in names]

    def _span_at_sight(self, name: str) -> tuple[int, int] | None:
        """Where the value of the member ``name`` stands, if one search finds it: the name stands there once,
        has a plain text behind it, and nothing may be another way to write that name."""
        before, quoted, behind = self.text.partition(f'"{name}"')
        if quoted in behind or "\\u" in self.text:
            return None
        match = _PLAIN_VALUE.match(self.text, len(before) + len(quoted))
        return match.span(1) if match else None


def _read_fast(text: str) -> dict[str, Any] | None:
    """The members of the object in ``text``; None: look closely. The parser is several times as fast as the
    standard library's and reads the same, but refuses some of it, and says less of what is wrong."""
    if text.count(":") > MAX_MEMBERS:
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read(text: str) -> list[_Member]:
    """The members of the object in ``text``, with their places. Raises ``BadRequest``."""
    try:
        if not _OPENING.match(text):
            _refuse_other_value(text)
        found = list(islice(_scan(text), MAX_MEMBERS + 1))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _invalid_json(f"The request body is not valid JSON ({place}).") from None
    except ValueError:  # NaN, Infinity, or digits beyond what a number can hold
        raise _invalid_json("The request body holds a number that JSON does not allow.") from None
    except RecursionError:
        raise _invalid_json("The request body is nested too deeply.") from None
    if len(found) > MAX_MEMBERS:
        message = f"The request body has more than {MAX_MEMBERS} members at its top."
        raise BadRequest(message, "invalid_body")
    return found


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _invalid_json("The request body is not UTF-8 text.") from None


def _refuse_other_value(text: str) -> NoReturn:
    _DECODER.decode(text)
    raise BadRequest("The request body has to be a JSON object.", "invalid_body")


def _scan(text: str) -> Iterator[_Member]:
    """The members of the object that ``text`` is. Raises ``ValueError`` and ``RecursionError``."""
    opening = _expect(_OPENING, text, 0)
    at = opening.end()
    is_closed = opening["closed"] is not None
    while not is_closed:
        key, start = _name(text, at)
        value, end = _DECODER.raw_decode(text, start)
        yield _Member(key, value, start, end)
        behind = _expect(_BEHIND, text, end)
        at = behind.end()
        is_closed = behind["closed"] is not None
    if at != len(text):
        raise json.JSONDecodeError("text behind the object", text, at)


def _name(text: str, at: int) -> tuple[str, int]:
    """The name at ``at`` and where its value begins."""
    if plain := _PLAIN_NAME.match(text, at):
        return plain[1], plain.end()
    if not text.startswith('"', at):
        raise json.JSONDecodeError("a name is missing", text, at)
    key, end = _DECODER.raw_decode(text, at)
    return key, _expect(_COLON, text, end).end()


def _expect(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    if match := pattern.match(text, at):
        return match
    raise json.JSONDecodeError("something else is expected", text, at)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value - value != 0:
        raise ValueError("a number beyond every float")
    return value


def _invalid_json(message: str) -> BadRequest:
    return BadRequest(message, "invalid_json")


_ENCODER = json.JSONEncoder(allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
