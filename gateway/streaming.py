"""Relays a provider's stream event by event, gathering the usage on the way.

Takes an open call; leaves it finished, or handed to the pumps when the client has gone. The row is put
before the last event goes out, so that a client that closes at once takes nothing with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiohttp import web

from backends import NotDurable

from .answers import (
    INTERNAL_ERROR,
    NOT_DURABLE,
    SHUTTING_DOWN,
    USAGE_ID,
    error_event,
    provider_body,
    provider_ending,
)
from .calls import BUG, COMPLETE, SHUTDOWN, Call, Ending
from .providers.base import Event, EventStream, Provider
from .providers.errors import ProviderError
from .pumps import Pumps

log = logging.getLogger("gateway.calls")

HEAD = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
LAST_WORD_S = 0.5
"""How long a client that reads slowly may hold up the word that the gateway is stopping."""


@dataclass(slots=True)
class Relay:
    """One stream on its way. ``shows_usage``: the client asked for the usage chunk itself."""

    request: web.Request
    call: Call
    pumps: Pumps
    shows_usage: bool

    async def run(self, provider: Provider, body: bytes) -> web.StreamResponse:
        """Raises ``ProviderError`` if the provider fails before its stream begins: then the client has had
        nothing yet. Cancelled, it leaves the call finished (``shutdown``)."""
        async with AsyncExitStack() as resources:
            with self.call.waiting():
                stream = await resources.enter_async_context(
                    provider.stream(self.call.facts.endpoint, body, self.call.facts.request_id)
                )
            response = web.StreamResponse(headers=self._head())
            try:
                await response.prepare(self.request)
                self.call.status_sent = response.status
                await self._relay(stream, response)
            except ConnectionError:  # the client's connection: the provider's errors are ProviderErrors
                if not self.call.is_finished:
                    self.pumps.adopt(self.call, stream, resources.pop_all())
            except asyncio.CancelledError:
                self.call.finish(SHUTDOWN)
                await self._say_goodbye(response)
                raise
            return response

    def _head(self) -> dict[str, str]:
        return HEAD if self.call.usage_id is None else {**HEAD, USAGE_ID: str(self.call.usage_id)}

    async def _relay(self, stream: EventStream, response: web.StreamResponse) -> None:
        try:
            while (event := await self._next(stream)) is not None:
                if self.call.see(event):
                    return await self._end(response, COMPLETE, event.raw)
                if event.is_error:
                    return await self._end(response, _provider_gave_up(event), event.raw)
                if self.shows_usage or not event.is_usage_only:
                    await response.write(event.raw)
        except ProviderError as error:
            await self._end(response, provider_ending(error), error_event(provider_body(error)))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("call_failed", extra={"request_id": self.call.facts.request_id})
            await self._end(response, BUG, error_event(INTERNAL_ERROR))

    async def _next(self, stream: EventStream) -> Event | None:
        began = time.monotonic()
        try:
            return await anext(stream, None)
        finally:
            self.call.waited_s += time.monotonic() - began

    async def _end(self, response: web.StreamResponse, ending: Ending, last_event: bytes) -> None:
        self.call.finish(ending)
        try:
            await self.call.durable()
        except NotDurable:
            last_event = error_event(NOT_DURABLE)
        await response.write(last_event)
        await response.write_eof()

    async def _say_goodbye(self, response: web.StreamResponse) -> None:
        if not response.prepared:
            return
        try:
            async with asyncio.timeout(LAST_WORD_S):
                await response.write(error_event(SHUTTING_DOWN))
                await response.write_eof()
        except (ConnectionError, TimeoutError):
            pass  # the row is put; the client only misses the reason


def _provider_gave_up(event: Event) -> Ending:
    return Ending(
        status="error",
        end_reason="provider_error",
        status_code=502,
        error_code="provider_error",
        error_message=event.error_message,
    )
