"""A provider's stream that tells the health of its target how it goes, and that has to begin in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from .providers.base import Event, EventStream
from .providers.errors import ProviderError, ProviderFailed, ProviderTimeout
from .routing import Plan, Ticket


class WatchedStream:
    """See ``EventStream``. Tells the attempt's ticket what becomes of ``events``, the first of which has to
    be there at ``first_by`` (loop time)."""

    def __init__(self, events: EventStream, ticket: Ticket, plan: Plan, first_by: float | None) -> None:
        self._events = events
        self._ticket = ticket
        self._plan = plan
        self._first_by = first_by
        self._first: list[Event] = []
        self._has_begun = False

    @property
    def content_type(self) -> str:
        """See ``EventStream``."""
        return self._events.content_type

    def __aiter__(self) -> WatchedStream:
        return self

    async def __anext__(self) -> list[Event]:
        events, self._first = self._first, []
        return events or await self._read()

    async def begin(self, see: Callable[[Event], object]) -> None:
        """Wait for the first event, which is kept for the reader with all that came with it. Raises
        ``ProviderError``, also for a failure that one of them tells of: ``see`` has those up to it, which
        nobody else will read."""
        events = await self._read()
        for number, event in enumerate(events, 1):
            if event.is_error:
                for each in events[:number]:
                    see(each)
                raise failure_in(event)
        self._first = events

    async def _read(self) -> list[Event]:
        try:
            events = await self._next()
        except ProviderError as error:
            self._plan.heed(self._ticket, error, datetime.now(UTC))
            raise
        for event in events:
            self._note(event)
        return events

    async def _next(self) -> list[Event]:
        if self._has_begun:
            return await anext(self._events)
        async with in_time(self._first_by):
            return await anext(self._events)

    def _note(self, event: Event) -> None:
        if event.is_error:
            self._ticket.fail()
        elif event.is_done:
            self._ticket.answer()
            self._ticket.succeed()
        elif not self._has_begun:
            self._ticket.answer()
        self._has_begun = True


def failure_in(event: Event) -> ProviderFailed:
    """The failure that ``event`` tells of."""
    return ProviderFailed("The provider's stream ended with an error.", said=event.error_message)


@asynccontextmanager
async def in_time(when: float | None) -> AsyncIterator[None]:
    """What runs inside raises ``ProviderTimeout`` at ``when`` (loop time); None: never."""
    try:
        async with asyncio.timeout_at(when):
            yield
    except TimeoutError:
        raise ProviderTimeout("The provider did not answer in time.") from None
