"""Relays a provider's stream as it comes, gathering the usage on the way.

Takes an open call; leaves it finished, or handed to the pumps when the client has gone. The row is put
before the last event goes out, so that a client that closes at once takes nothing with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from aiohttp import web

from backends import NotDurable

from .answers import (
    INTERNAL_ERROR,
    NOT_DURABLE,
    SHUTTING_DOWN,
    USAGE_ID,
    cancelled_ending,
    provider_problem,
)
from .attempting import Attempts
from .calls import Call
from .departure import Departure, WatchedResponse, has_left
from .endings import BUG, CLIENT_LEFT, COMPLETE, Ending, provider_ending
from .errors import GatewayError
from .formats import Format
from .providers.base import Event, EventStream
from .providers.errors import ProviderError
from .pumps import Pumps
from .sections import StreamSettings
from .silence import Silence, StillSilent
from .watched_stream import failure_in

log = logging.getLogger("gateway.calls")

NO_STORE = {"Cache-Control": "no-store"}
LAST_WORD_S = 0.5
"""How long a client that reads slowly may hold up the word that the gateway is stopping."""


@dataclass(slots=True)
class Relay:
    """One stream on its way. ``shows_usage``: the client asked for the usage chunk itself. ``passed_on``: the
    event that it had last."""

    request: web.Request
    call: Call
    pumps: Pumps
    format: Format
    streams: StreamSettings
    shows_usage: bool
    passed_on: bytes = b""
    last_event: bytes | None = None
    """With what the stream ends, once that is known; ``is_over`` once the connection has it."""
    is_over: bool = False
    is_events: bool = True
    is_cut: bool = False
    """The stream ends with its connection: a body that is no stream of events has no place for an error."""

    async def run(self, attempts: Attempts) -> web.StreamResponse:
        """Raises ``ProviderError`` if no attempt leads to a stream: then the client has had nothing yet.
        Cancelled in mid-stream, it says goodbye and leaves the call finished (``shutdown``)."""
        response = WatchedResponse()
        departure = Departure(self.request, self.pumps.patience_s)
        departure.watch(response, self.streams.unread_s)
        async with AsyncExitStack() as resources:
            stream: EventStream | None = None
            try:
                async with departure:
                    stream = await attempts.open(resources)
                    departure.patience_s = 0.0
                    response.headers.update(self._head(stream.content_type))
                    await response.prepare(self.request)
                    self.call.status_sent = response.status
                    await self._relay(stream, response)
            except ConnectionError:  # the client's connection: the provider's errors are ProviderErrors
                self._hand_over(stream, resources, departure.left_at)
            except asyncio.CancelledError:
                if response.prepared:
                    await self._say_goodbye(response)
                raise
        return response

    def _head(self, content_type: str) -> dict[str, str]:
        self.is_events = content_type.startswith("text/event-stream")
        head = {"Content-Type": content_type, **NO_STORE}
        return head if self.call.usage_id is None else {**head, USAGE_ID: str(self.call.usage_id)}

    def _hand_over(
        self, stream: EventStream | None, resources: AsyncExitStack, left_at: float | None
    ) -> None:
        """The client has gone: what is left to do is the pumps'."""
        if stream is None:  # and the provider has not even begun within the time that it is read on for
            self.call.finish(CLIENT_LEFT)
        elif not self.call.is_finished:
            self.pumps.adopt(self.call, stream, resources.pop_all(), left_at)

    async def _relay(self, stream: EventStream, response: web.StreamResponse) -> None:
        silence = Silence(self._keepalive_s())
        try:
            while (events := await self._next(stream, response, silence)) is not None:
                told, last = self._see(events)
                if told:
                    self.passed_on = told[-1]
                    await response.write(b"".join(told))
                if last is not None:
                    return await self._ended(response, last)
        except ProviderError as error:
            await self._end(response, provider_ending(error), self._error_event(provider_problem(error)))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("call_failed", extra={"request_id": self.call.facts.request_id})
            await self._end(response, BUG, self._error_event(INTERNAL_ERROR))
        finally:
            silence.close()

    def _see(self, events: list[Event]) -> tuple[list[bytes], Event | None]:
        """Learn from ``events``; what of them goes to the client, and the one that ends the stream, if it is
        there. All of them before the first is written: a write that fails takes nothing from the row."""
        told: list[bytes] = []
        for event in events:
            if self.call.see(event) or event.is_error:
                return told, event
            if event.raw and (self.shows_usage or not event.is_usage_only):
                told.append(event.raw)
        return told, None

    async def _ended(self, response: web.StreamResponse, event: Event) -> None:
        if event.is_error:
            return await self._failed(response, event)
        await self._end(response, COMPLETE, event.raw)

    async def _failed(self, response: web.StreamResponse, event: Event) -> None:
        """The provider gave up. The format's own last event says so better than any other."""
        error = failure_in(event)
        told = event.raw if event.is_done else self._error_event(provider_problem(error))
        await self._end(response, provider_ending(error), told)

    def _error_event(self, problem: GatewayError) -> bytes:
        self.is_cut = not self.is_events
        return self.format.error_event(problem, self.passed_on)

    async def _next(
        self, stream: EventStream, response: web.StreamResponse, silence: Silence
    ) -> list[Event] | None:
        began = time.monotonic()
        try:
            while True:
                try:
                    with silence:
                        return await anext(stream, None)
                except StillSilent:
                    await response.write(self.format.keep_alive)  # the read that ended has lost no event
        finally:
            self.call.waited_s += time.monotonic() - began

    def _keepalive_s(self) -> float | None:
        return self.streams.keepalive_s or None if self.is_events else None

    async def _end(self, response: web.StreamResponse, ending: Ending, last_event: bytes) -> None:
        self.last_event = last_event
        is_unheard = ending is not BUG and has_left(self.request)
        self.call.finish(CLIENT_LEFT if is_unheard else ending)
        await self._write_last(response)

    async def _write_last(self, response: web.StreamResponse) -> None:
        """Write the last event, once the row is as durable as promised. May be cancelled and repeated."""
        try:
            await self.call.durable()
        except NotDurable:
            self.last_event = self._error_event(NOT_DURABLE)
        if not self.is_over:
            self.is_over = True
            if self.is_cut:
                return self._cut()
            if self.last_event:
                await response.write(self.last_event)
        await response.write_eof()

    def _cut(self) -> None:
        if self.request.transport is not None:
            self.request.transport.close()

    async def _say_goodbye(self, response: web.StreamResponse) -> None:
        """The gateway stops: end the call, and give the client its last word, whatever that is by now."""
        self.call.finish(cancelled_ending(self.request))
        if self.last_event is None:
            self.last_event = self._error_event(SHUTTING_DOWN)
        with suppress(ConnectionError, TimeoutError):  # the row is put; the client only misses the reason
            async with asyncio.timeout(LAST_WORD_S):
                await self._write_last(response)
