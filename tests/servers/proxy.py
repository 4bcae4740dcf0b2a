"""A wire that fails to order: a TCP proxy between a driver and its server, inside the test's own event loop.

Takes the address of a real server; gives a port of 127.0.0.1 that passes everything on until it is told a
fault. A fault holds for open and for new connections until ``heal``; ``cut_after`` and ``drop_reply`` strike
as often as they were told to, and then the wire is well again. Knows no protocol.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

from .listener import Listener

_CHUNK_BYTES = 64 * 1024
_SLICE_S = 0.01
"""A throttled wire passes what it may pass in this time, then pauses for as long."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class _Fault:
    is_black_hole: bool = False
    is_resetting: bool = False
    delay_s: float = 0.0
    bytes_per_s: float | None = None
    cut_after: int | None = None
    cuts_replies: bool = False
    drops: int = 0
    drop_request: bytes = b""
    drop_reply: bytes = b""


@dataclass(eq=False, slots=True)
class _Link:
    """One connection. ``tail`` is the end of what was asked on it, ``is_asked`` that the request whose reply
    is to be dropped went through."""

    ends: list[asyncio.StreamWriter]
    tail: bytes = b""
    is_asked: bool = False

    def reset(self) -> None:
        """End both sides at once, by RST: what is under way is gone."""
        for writer in self.ends:
            if sock := writer.get_extra_info("socket"):
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class Proxy:
    """``async with Proxy(server_port) as proxy``; drivers connect to ``proxy.port``.

    ``struck`` is set, and ``strikes`` counted, when a fault swallows something or ends a connection.
    """

    def __init__(self, server_port: int, server_host: str = "127.0.0.1") -> None:
        self.server = (server_host, server_port)
        self.port = 0
        self.strikes = 0
        self.struck = asyncio.Event()
        self._fault = _Fault()
        self._links: set[_Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._listener: Listener | None = None

    async def __aenter__(self) -> Self:
        self._listen()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stop_listening()
        self._reset_all()
        if self._serving:
            await asyncio.wait(self._serving)

    @property
    def connections(self) -> int:
        """How many are open through the proxy now."""
        return len(self._links)

    # --- faults

    def refuse(self) -> None:
        """Nobody listens any more: open connections are reset, new ones refused."""
        self._stop_listening()
        self._reset_all()

    def black_hole(self) -> None:
        """Connections are taken and stay open, what is said on them goes nowhere, either way."""
        self._fault = _Fault(is_black_hole=True)

    def delay(self, seconds: float) -> None:
        """Every chunk comes so much later, either way."""
        self._fault = _Fault(delay_s=seconds)

    def reset(self) -> None:
        """Open connections are reset now, new ones with the first bytes said on them."""
        self._fault = _Fault(is_resetting=True)
        self._reset_all()

    def throttle(self, bytes_per_s: float) -> None:
        """Each connection passes no more than this, per direction."""
        self._fault = _Fault(bytes_per_s=bytes_per_s)

    def cut_after(self, count: int, *, replies: bool = False) -> None:
        """Pass ``count`` more bytes of requests, or of ``replies``, then reset that connection. Once."""
        self._fault = _Fault(cut_after=count, cuts_replies=replies)

    def drop_reply(self, request: bytes = b"", *, reply: bytes = b"", times: int = 1) -> None:
        """The server gets and does what it is asked, the answer is lost, and the connection is reset.

        Meant is the first answer behind a request that contains ``request``, or, with ``reply``, the first
        one behind it that contains those bytes: the end of a statement, where others are answered before.
        """
        self._fault = _Fault(drops=times, drop_request=request, drop_reply=reply)
        for link in self._links:
            link.tail, link.is_asked = b"", not request

    async def heal(self) -> None:
        """No more faults. Connections that a fault left open are passed on, less what it swallowed."""
        self._fault = _Fault()
        if self._listener is None:
            self._listen()

    # --- connections

    def _listen(self) -> None:
        self._listener = Listener(self._serve, self._serving, self.port)
        self.port = self._listener.port

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener:
            listener.close()

    def _reset_all(self) -> None:
        for link in tuple(self._links):
            link.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link([writer], is_asked=not self._fault.drop_request)
        self._links.add(link)
        try:
            if self._listener is None:
                return  # it was being let in while we stopped to listen
            with suppress(OSError):  # a server that is down: the driver sees a reset
                server_reader, server_writer = await asyncio.open_connection(*self.server)
                link.ends.append(server_writer)
                await asyncio.gather(
                    self._pass(reader, server_writer, link, is_reply=False),
                    self._pass(server_reader, writer, link, is_reply=True),
                )
        finally:
            link.reset()
            self._links.discard(link)

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, link: _Link, *, is_reply: bool
    ) -> None:
        with suppress(OSError):
            while chunk := await source.read(self._chunk_bytes()):
                await self._pause(chunk)
                if self._fault.is_black_hole:
                    self._strike()
                    continue
                if self._is_hit(chunk, target, link, is_reply):
                    self._strike()
                    break
                target.write(chunk)
                await target.drain()
        link.reset()

    def _chunk_bytes(self) -> int:
        rate = self._fault.bytes_per_s
        return _CHUNK_BYTES if rate is None else max(1, int(rate * _SLICE_S))

    async def _pause(self, chunk: bytes) -> None:
        rate = self._fault.bytes_per_s
        seconds = self._fault.delay_s if rate is None else len(chunk) / rate
        if seconds:
            await asyncio.sleep(seconds)

    def _strike(self) -> None:
        self.strikes += 1
        self.struck.set()

    def _is_hit(self, chunk: bytes, target: asyncio.StreamWriter, link: _Link, is_reply: bool) -> bool:
        """Whether the fault takes ``chunk``, and with it the connection."""
        return (
            self._fault.is_resetting
            or self._is_cut(chunk, target, is_reply)
            or self._is_dropped(chunk, link, is_reply)
        )

    def _is_cut(self, chunk: bytes, target: asyncio.StreamWriter, is_reply: bool) -> bool:
        left = self._fault.cut_after
        if left is None or is_reply != self._fault.cuts_replies:
            return False
        if len(chunk) < left:
            self._fault = replace(self._fault, cut_after=left - len(chunk))
            return False
        target.write(chunk[:left])
        self._fault = _Fault()
        return True

    def _is_dropped(self, chunk: bytes, link: _Link, is_reply: bool) -> bool:
        fault = self._fault
        if not fault.drops:
            return False
        if not is_reply:
            said = link.tail + chunk
            link.is_asked = link.is_asked or fault.drop_request in said
            link.tail = said[-len(fault.drop_request) :]  # it may lie across two chunks
            return False
        if not link.is_asked or fault.drop_reply not in chunk:
            return False
        self._fault = replace(fault, drops=fault.drops - 1)
        return True
