"""Server-sent events, cut out of a byte stream without changing a byte.

Takes chunks as they come from the wire, cut anywhere; gives whole events, each with its blank line.
Knows the three line ends of the format and its ``data`` lines, nothing of what they carry.
Joined, the events are the stream.
"""

from __future__ import annotations

import re

MAX_EVENT_BYTES = 1024 * 1024

# A line end and then an empty line. After "\n\r" an "\n" may still follow, so the byte behind it has to
# be there; "\r\r" can be taken at once, since an "\n" behind it is one more empty line to any reader.
_EVENT_END = re.compile(rb"\r?\n(?:\n|\r\n|\r(?=[^\n]))|\r\r")
_LOOK_BACK = 3
"""An end that is not found yet may have begun so many bytes before the next chunk."""


class EventTooLarge(Exception):
    """One event is longer than the bound; the stream cannot be read on."""


class SseParser:
    """The state between two chunks of one stream. Synchronous; once it raised, it raises every time."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._scanned = 0
        self._has_cr = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that ``chunk`` completes.

        Raises ``EventTooLarge``, but gives the events before that one first.
        """
        self._has_cr = self._has_cr or b"\r" in chunk
        if not self._buffer and not self._has_cr and len(chunk) <= self._max_event_bytes:
            return self._split(chunk)
        self._buffer += chunk
        events: list[bytes] = []
        begin = 0
        while 0 < (end := self._end_after(max(begin, self._scanned))) <= begin + self._max_event_bytes:
            events.append(bytes(self._buffer[begin:end]))
            begin = end
        del self._buffer[:begin]
        if not events:
            self._check_size()
        self._scanned = max(0, len(self._buffer) - _LOOK_BACK)
        return events

    def close(self) -> bytes:
        """What is left at the end of the stream: the start of an event, or nothing.

        Raises ``EventTooLarge``.
        """
        self._check_size()
        rest = bytes(self._buffer)
        return rest if rest.strip(b"\r\n") else b""

    def _split(self, chunk: bytes) -> list[bytes]:
        """The events of a chunk that begins with one, the usual case, without a search for each."""
        *events, rest = chunk.split(b"\n\n")
        self._buffer += rest
        self._scanned = max(0, len(rest) - _LOOK_BACK)
        return [event + b"\n\n" for event in events]

    def _end_after(self, start: int) -> int:
        """Where the event that is searched from ``start`` on ends; 0 when that is not known yet."""
        if not self._has_cr:  # the usual stream, and much the faster search
            found = self._buffer.find(b"\n\n", start)
            return found + 2 if found >= 0 else 0
        match = _EVENT_END.search(self._buffer, start)
        return match.end() if match else 0

    def _check_size(self) -> None:
        if len(self._buffer) > self._max_event_bytes:
            raise EventTooLarge


def event_data(event: bytes) -> bytes:
    """The ``data`` of one event, its lines joined by LF; empty for a comment."""
    values = [_value(line) for line in event.splitlines() if line.startswith(b"data:") or line == b"data"]
    return b"\n".join(values)


def _value(line: bytes) -> bytes:
    return line[len(b"data:") :].removeprefix(b" ")
