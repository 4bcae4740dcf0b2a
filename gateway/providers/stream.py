"""The events of one streamed answer.

Takes the body of a response; gives whole events, one by one, up to the last. The parser and the queue
between hold at most one chunk's worth, so a slow reader slows the provider down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

import aiohttp

from ..formats import Format
from ..sse import EventTooLarge, SseParser
from .base import Event
from .errors import ProviderMalformed, ProviderStreamCut
from .transport import TRANSPORT_ERRORS, typed

EVENTS = "text/event-stream; charset=utf-8"
_LAST_BYTES_S = 0.25
"""What the end of the HTTP message may take behind the last event, for the connection to be kept."""


class SseStream:
    """See ``EventStream``. ``api_key`` is taken out of the texts of errors."""

    content_type = EVENTS

    def __init__(self, content: aiohttp.StreamReader, format: Format, api_key: str) -> None:
        self._content = content
        self._format = format
        self._api_key = api_key
        self._parser = SseParser()
        self._ready: deque[Event] = deque()
        self._is_done = False

    def __aiter__(self) -> SseStream:
        return self

    async def __anext__(self) -> Event:
        while not self._is_done:
            if self._ready:
                event = self._ready.popleft()
                self._is_done = event.is_done
                return event
            await self._read()
        raise StopAsyncIteration

    async def finish(self) -> None:
        """After the last event: take the end of the message if it comes at once. Raises nothing."""
        if self._is_done and not self._content.at_eof():
            with suppress(*TRANSPORT_ERRORS):
                async with asyncio.timeout(_LAST_BYTES_S):
                    while await self._content.readany():
                        pass

    async def _read(self) -> None:
        """Fill the queue. The only await is the first line: a cancelled read has taken nothing."""
        try:
            chunk = await self._content.readany()
        except TRANSPORT_ERRORS as error:
            raise typed(error, lost=ProviderStreamCut) from error
        try:
            events = self._parser.feed(chunk) if chunk else [self._last_event()]
        except EventTooLarge:
            raise ProviderMalformed("An event of the provider's stream is too large.") from None
        self._ready.extend(self._format.read_event(event, self._api_key) for event in events)

    def _last_event(self) -> bytes:
        """The last event, completed, when only its empty line is missing; half an answer is not passed on."""
        rest = self._parser.close()
        if not self._format.read_event(rest, "").is_done:
            raise ProviderStreamCut("The provider's stream ended before its last event.")
        return rest.rstrip(b"\r\n") + b"\n\n"
