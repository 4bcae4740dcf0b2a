"""Lets connections in, so that none is ever nobody's.

asyncio's own server may be closed between letting a connection in and giving it to its callback; then nobody
closes that connection. Here both are one step.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Listens on ``port`` of 127.0.0.1, 0 for a free one, from now on. Each connection is served by a task
    among ``serving``; whoever ends waits for these, and does not cancel them before their first step."""

    def __init__(self, serve: Serve, serving: set[asyncio.Task[None]], port: int = 0) -> None:
        self._serve = serve
        self._serving = serving
        self._loop = asyncio.get_running_loop()
        self._socket = socket.create_server(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._let_in)
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Refuse connections from now on."""
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _let_in(self) -> None:
        with suppress(OSError):  # it has gone again
            connection, _ = self._socket.accept()
            connection.setblocking(False)
            task = self._loop.create_task(self._served(connection))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _served(self, connection: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
        except BaseException:
            connection.close()
            raise
        try:
            await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
