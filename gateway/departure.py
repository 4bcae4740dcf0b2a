"""Notices that the client of a stream left, also while the provider is silent and there is nothing to write.

A server that does not cancel the handlers of such clients, as ours must not, tells nobody when a connection
is lost: the next write fails, and until then only looking helps.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from aiohttp import web

LOOK_S = 0.5
"""So often each running stream is looked at."""


class ClientLeft(ConnectionError):
    """The client closed its connection; raised where a write to it would have failed."""


def has_left(request: web.BaseRequest) -> bool:
    """Whether the connection of ``request`` is known to be gone."""
    return request.transport is None or request.transport.is_closing()


class Departure:
    """A guard: what runs inside ends with ``ClientLeft`` once the client has been gone for ``patience_s``
    seconds, which may be changed inside. ``left_at`` is the loop's time at which the leave was noticed."""

    def __init__(self, request: web.BaseRequest, patience_s: float) -> None:
        self.patience_s = patience_s
        self.left_at: float | None = None
        self._request = request
        self._scope = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()

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
            self._timer = self._loop.call_later(LOOK_S, self._look)
