"""Notices that the client of a stream left, also while the provider is silent and there is nothing to write,
and gives up a client that is there and reads nothing.

A server that does not cancel the handlers of such clients, as ours must not, tells nobody when a connection
is lost: the next write fails, and until then only looking helps. A write waits for its reader as long as it
takes, so that a slow reader slows the provider down; that somebody reads is seen by what the client's machine
has not acknowledged yet.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from contextlib import suppress
from types import TracebackType

from aiohttp import web

LOOK_S = 0.5
"""So often each running stream is looked at."""


class ClientLeft(ConnectionError):
    """The client closed its connection; raised where a write to it would have failed."""


def has_left(request: web.BaseRequest) -> bool:
    """Whether the connection of ``request`` is known to be gone."""
    return request.transport is None or request.transport.is_closing()


def unsent_bytes(transport: asyncio.WriteTransport) -> int:
    """What ``transport``, which is open, was given and the other side has not acknowledged. The kernel holds
    megabytes of it and takes more only in large steps, so that a slow reader is seen there alone. Where the
    kernel does not tell (Linux does), what the process holds."""
    size = transport.get_write_buffer_size()
    connection = transport.get_extra_info("socket")
    with suppress(OSError):
        if connection is not None:
            answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
            size += struct.unpack("i", answer)[0]
    return size


class WatchedResponse(web.StreamResponse):
    """Says how many writes it has begun, and whether the last of them still waits for its reader."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.is_writing = False

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """See ``StreamResponse``."""
        self.writes += 1
        self.is_writing = True
        try:
            await super().write(data)
        finally:
            self.is_writing = False

    async def write_eof(self, data: bytes = b"") -> None:
        """See ``StreamResponse``."""
        self.writes += 1
        self.is_writing = True
        try:
            await super().write_eof(data)
        finally:
            self.is_writing = False


class Departure:
    """A guard: what runs inside ends with ``ClientLeft`` once the client has been gone for ``patience_s``
    seconds, which may be changed inside. ``left_at`` is the loop's time at which the leave was noticed."""

    def __init__(self, request: web.BaseRequest, patience_s: float) -> None:
        self.patience_s = patience_s
        self.left_at: float | None = None
        self._response: WatchedResponse | None = None
        self._unread_s = 0.0
        self._seen = (0, 0)
        self._seen_at = 0.0
        self._request = request
        self._scope = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()

    def watch(self, response: WatchedResponse, unread_s: float) -> None:
        """For so many seconds a write of ``response`` may wait without the client's machine taking anything,
        then its connection is closed, and the write raises ``ConnectionError``; 0: for ever."""
        self._response, self._unread_s = response, unread_s

    async def __aenter__(self) -> Departure:
        await self._scope.__aenter__()
        self._timer = self._loop.call_later(LOOK_S, self._look)
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        try:
            await self._scope.__aexit__(error_type, error, traceback)
        except TimeoutError:
            raise ClientLeft from None

    def _look(self) -> None:
        now = self._loop.time()
        if self.left_at is None and has_left(self._request):
            self.left_at = now
        if self.left_at is not None and now >= self.left_at + self.patience_s:
            self._scope.reschedule(now)
        else:
            self._give_up_if_unread(now)
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def _give_up_if_unread(self, now: float) -> None:
        response, transport = self._response, self._request.transport
        if response is None or transport is None or transport.is_closing():
            return
        if not response.is_writing or not self._unread_s:
            return
        state = (response.writes, unsent_bytes(transport))
        if state != self._seen:
            self._seen, self._seen_at = state, now
        elif now - self._seen_at >= self._unread_s:
            transport.abort()
