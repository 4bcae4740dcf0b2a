"""The body of a call that is a form: its fields are read, its files are not, and all is passed on as it came.

Takes the raw bytes of ``multipart/form-data``; gives its fields as text and, on demand, the same bytes with
single fields replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, NamedTuple

from aiohttp import parse_content_disposition

from .errors import BadRequest

MAX_PARTS = 200
_DISPOSITION = re.compile(rb"(?:^|\r\n)content-disposition:[ \t]*([^\r\n]*)", re.IGNORECASE)


class _Part(NamedTuple):
    """One part: its head, and where its content stands."""

    head: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class FormBody:
    """One form. ``members`` holds the text of each field, of several of one name the last."""

    raw: bytes = field(repr=False)
    members: dict[str, Any] = field(repr=False)
    _spans: tuple[tuple[str, int, int], ...] = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes, content_type: str) -> FormBody:
        """The form in ``raw``. Raises ``BadRequest``."""
        spans = []
        for count, part in enumerate(_parts(raw, _boundary(content_type))):
            if count == MAX_PARTS:
                raise _invalid(f"The form has more than {MAX_PARTS} parts.")
            if (name := _field_name(part.head)) is not None:
                spans.append((name, part.start, part.end))
        return cls(raw, {name: _text(raw[start:end]) for name, start, end in spans}, tuple(spans))

    def get(self, key: str) -> Any:
        """The text of the field ``key``, or None."""
        return self.members.get(key)

    def with_members(self, changes: Mapping[str, Any]) -> bytes:
        """The form with every field named in ``changes`` replaced; what is not there is not added."""
        return b"".join(self._pieces(changes))

    def _pieces(self, changes: Mapping[str, Any]) -> Iterator[bytes]:
        done = 0
        for name, start, end in self._spans:
            if name in changes:
                yield self.raw[done:start]
                yield str(changes[name]).encode("utf-8", "surrogatepass")
                done = end
        yield self.raw[done:]


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_boundary()
    if not boundary:
        raise _invalid("The content-type of the form names no boundary.")
    return boundary.encode("utf-8", "surrogateescape")


def _parts(raw: bytes, boundary: bytes) -> Iterator[_Part]:
    """The parts of the form, up to its end. Raises ``BadRequest`` where there is none."""
    line = re.compile(rb"(?:^|\r\n)--" + re.escape(boundary) + rb"(?:(--)|[ \t]*(?=\r\n))")
    at = line.search(raw)
    while at is not None and at[1] is None:
        head_end = raw.find(b"\r\n\r\n", at.end())
        # From two bytes earlier: the content may be empty, and the line end is the boundary's.
        after = line.search(raw, head_end + 2) if head_end >= 0 else None
        if after is None:
            break
        yield _Part(raw[at.end() : head_end], head_end + 4, max(after.start(), head_end + 4))
        at = after
    if at is None or at[1] is None:
        raise _invalid("The form is not complete.")


def _field_name(head: bytes) -> str | None:
    """The name of the part, unless it is a file."""
    found = _DISPOSITION.search(head)
    if found is None:
        return None
    kind, parameters = parse_content_disposition(found[1].decode("utf-8", "replace"))
    is_file = any(name.startswith("filename") for name in parameters)
    return parameters.get("name") if kind == "form-data" and not is_file else None


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _invalid("A field of the form is not UTF-8 text.") from None


def _invalid(message: str) -> BadRequest:
    return BadRequest(message, "invalid_body")
