"""The pieces of one answer that is passed on as it comes.

Takes the body of a response; gives whole events, those together that one read completes, up to the last, or
the bytes of a body that is no stream of events. The parser holds at most one chunk's worth, so a slow reader
slows the provider down.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import aiohttp

from ..formats import Format
from ..sse import EventTooLarge, SseParser
from .base import Answer, Event
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
        self._parser = SseParser(format.max_event_bytes)
        self._held: Event | None = None
        self._is_done = False

    def __aiter__(self) -> SseStream:
        return self

    async def __anext__(self) -> list[Event]:
        while not self._is_done:
            if events := await self._read():
                self._is_done = events[-1].is_done
                return events
        raise StopAsyncIteration

    async def finish(self) -> None:
        """After the last event: take the end of the message if it comes at once. Raises nothing."""
        if self._is_done and not self._content.at_eof():
            with suppress(*TRANSPORT_ERRORS):
                async with asyncio.timeout(_LAST_BYTES_S):
                    while await self._content.readany():
                        pass

    async def _read(self) -> list[Event]:
        """What the next piece completes. The only await is the first line: a cancelled read has taken
        nothing."""
        try:
            chunk = await self._content.readany()
        except TRANSPORT_ERRORS as error:
            if self._held is None:
                raise typed(error, lost=ProviderStreamCut) from error
            return self._let_go(error)
        try:
            raws = self._parser.feed(chunk) if chunk else self._last_event()
        except EventTooLarge as error:
            if self._held is None:
                raise ProviderMalformed("An event of the provider's stream is too large.") from None
            return self._let_go(error)
        events = self._understood(raws)
        if not chunk and self._held is not None:
            events.append(self._held)
        return events

    def _let_go(self, error: Exception) -> list[Event]:
        """The event that may have been the last was that, if only silence came behind it. Otherwise the next
        read tells of ``error`` again."""
        assert self._held is not None
        held, self._held = self._held, None
        return [held._replace(is_done=isinstance(error, TimeoutError))]

    def _understood(self, raws: list[bytes]) -> list[Event]:
        """What ``raws`` mean, up to the last event. One that may be the last is held until it is known
        whether something comes behind it."""
        events: list[Event] = []
        for raw in raws:
            event = self._format.read_event(raw, self._api_key)
            if self._held is not None:
                events.append(self._held._replace(is_done=False))
                self._held = None
            if not event.is_done:
                events.append(event)
            elif self._format.ends_with_message:
                self._held = event
            else:
                return [*events, event]
        return events

    def _last_event(self) -> list[bytes]:
        """The last event, completed, when only its empty line is missing; half an answer is not passed on."""
        rest = self._parser.close()
        if self._format.read_event(rest, "").is_done:
            return [rest.rstrip(b"\r\n") + b"\n\n"]
        if self._held is None:
            raise ProviderStreamCut("The provider's stream ended before its last event.")
        return []


class PieceStream:
    """See ``EventStream``: a body that is no stream of events, piece by piece, and an empty piece at its
    end."""

    def __init__(self, content: aiohttp.StreamReader, content_type: str) -> None:
        self.content_type = content_type
        self._content = content
        self._is_done = False

    def __aiter__(self) -> PieceStream:
        return self

    async def __anext__(self) -> list[Event]:
        if self._is_done:
            raise StopAsyncIteration
        try:
            piece = await self._content.readany()
        except TRANSPORT_ERRORS as error:
            raise typed(error, lost=ProviderStreamCut) from error
        self._is_done = not piece
        return [Event(piece, is_done=self._is_done, has_text=False)]


class OneAnswer:
    """See ``EventStream``: a whole answer of a provider that does not stream what it was asked to."""

    def __init__(self, answer: Answer) -> None:
        self.content_type = answer.content_type
        self._answer: Answer | None = answer

    def __aiter__(self) -> OneAnswer:
        return self

    async def __anext__(self) -> list[Event]:
        answer, self._answer = self._answer, None
        if answer is None:
            raise StopAsyncIteration
        event = Event(answer.body, answer.usage, is_done=True, has_text=answer.has_text, images=answer.images)
        return [event]
