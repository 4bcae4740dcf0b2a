"""One end of a line between the supervisor and a worker: JSON objects in both directions, one a line.

Takes one end of a socket pair; gives what the other end says until it is gone. Knows no message by name.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Self

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The metrics of one worker are some tens of kilobytes."""


class Channel:
    """Made by ``open``. Sending never waits and never fails: whoever is gone hears nothing."""

    def __init__(
        self, end: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._end = end
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Self:
        """Take over ``end`` and close it in time."""
        return cls(end, *await asyncio.open_unix_connection(sock=end, limit=MAX_MESSAGE_BYTES))

    def send(self, **message: Any) -> None:
        """Say ``message``, whose values JSON can hold."""
        if not self._writer.is_closing():
            self._writer.write(_line(message))

    def send_at_once(self, **message: Any) -> None:
        """The same for a process that ends without another turn of its loop."""
        with suppress(OSError):
            self._end.send(_line(message))

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Everything that the other end says, until it is gone. One reader at a time."""
        while (line := await self._next_line()).endswith(b"\n"):
            with suppress(ValueError):  # the last words of a process that was killed in the middle of others
                yield json.loads(line)

    async def first(self) -> dict[str, Any] | None:
        """The next message; None: the other end is gone."""
        async for message in self.messages():
            return message
        return None

    async def _next_line(self) -> bytes:
        try:
            return await self._reader.readline()
        except (OSError, ValueError):  # gone without having read all that was said to it; or beyond the bound
            return b""

    def close(self) -> None:
        """Say no more. May be repeated."""
        self._writer.close()


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
