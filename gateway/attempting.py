"""The attempts of one call: the first one, and those that follow when one fails before the client had a byte.

Takes a call with its place, and the plan of its way; gives the answer, or the stream, of the attempt that
succeeded, or raises the error of the last one. An attempt that another one hides has a row of its own
(``absorbed``), in a place that is taken without waiting; without that place nothing follows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import TypeVar

from aiohttp import web

from .calls import Call
from .departure import ClientLeft, Departure, has_left
from .endings import provider_ending
from .keys import PRICES, PROVIDERS, SETTINGS, WRITER
from .providers.base import Answer, EventStream, Payload, Provider
from .providers.errors import ProviderError
from .routing import Plan, Ticket
from .watched_stream import WatchedStream, in_time

T = TypeVar("T")


class Payloads:
    """What is sent to a provider, by what it calls the model; ``make`` makes it. Only the last one is kept:
    most calls are tried under one name alone."""

    def __init__(self, make: Callable[[str], Payload]) -> None:
        self._make = make
        self._model: str | None = None
        self._last: Payload | None = None

    def of(self, model: str) -> Payload:
        """The payload for a provider that knows the model as ``model``. Raises ``BadRequest``."""
        if self._last is None or model != self._model:
            self._model, self._last = model, self._make(model)
        return self._last


class Attempts:
    """Of one call, which sends ``payloads``."""

    def __init__(self, request: web.Request, call: Call, plan: Plan, payloads: Payloads) -> None:
        self._request = request
        self._app = request.app
        self._call = call
        self._plan = plan
        self._payloads = payloads

    def send(self) -> Awaitable[Answer]:
        """The provider's whole answer. Raises ``ProviderError``: the last attempt's."""
        return self._until_answered(self._send)

    def open(self, resources: AsyncExitStack) -> Awaitable[EventStream]:
        """The provider's stream, whose connection closes with ``resources``. If something else could have
        been tried, its first event has come. Raises ``ProviderError``: the last attempt's."""
        return self._until_answered(lambda: self._open(resources))

    async def _until_answered(self, attempt: Callable[[], Awaitable[T]]) -> T:
        began = time.monotonic()
        try:
            while True:
                try:
                    return await attempt()
                except ProviderError as error:
                    pause_s = self._hide(error)
                    if pause_s is None or not await self._is_awaited_after(pause_s):
                        raise
        finally:  # all of that time is the provider's, not the gateway's
            self._call.waited_s += time.monotonic() - began

    # --- one attempt

    def _turn(self) -> tuple[Provider, Payload]:
        """The call turns to where the attempt under way goes, with this payload."""
        route = self._plan.route
        price = self._app[PRICES].price_at(route.price_key, self._call.began_at)
        self._call.turn_to(route, price)
        return self._app[PROVIDERS][route.provider], self._payloads.of(route.model)

    async def _send(self) -> Answer:
        facts, deadline = self._call.facts, self._deadline(self._plan.attempt_timeout_s)
        with self._plan.start() as ticket, _Heeded(self._plan, ticket):
            provider, payload = self._turn()
            sending = provider.send(facts.endpoint, payload, facts.request_id)
            answer = await sending if deadline is None else await _by(deadline, sending)
            ticket.answer()
            ticket.succeed()
            return answer

    async def _open(self, resources: AsyncExitStack) -> EventStream:
        facts = self._call.facts
        async with AsyncExitStack() as own:
            ticket = own.enter_context(self._plan.start())
            own.enter_context(_Heeded(self._plan, ticket))
            provider, payload = self._turn()
            first_by = self._deadline(self._plan.attempt_timeout_s, self._first_token_timeout_s())
            async with in_time(first_by):
                opening = provider.stream(facts.endpoint, payload, facts.request_id)
                events = await own.enter_async_context(opening)
            stream = WatchedStream(events, ticket, self._plan, first_by)
            if self._plan.has_more:
                await stream.begin(self._call.see)
            await resources.enter_async_context(own.pop_all())
            return stream

    def _first_token_timeout_s(self) -> float | None:
        provider = self._app[SETTINGS].providers[self._plan.route.provider]
        return provider.first_token_timeout_s

    def _deadline(self, *seconds: float | None) -> float | None:
        """The loop's time by which the shortest of ``seconds`` are over."""
        bounds = [each for each in seconds if each is not None]
        return asyncio.get_running_loop().time() + min(bounds) if bounds else None

    # --- between two

    def _hide(self, error: ProviderError) -> float | None:
        """Put the row of the attempt that failed with ``error``, if another one is to be made: after so many
        seconds. None: this attempt's outcome is the call's. Synchronous: no cancel comes between the place
        and its row."""
        if has_left(self._request):
            return None
        step = self._plan.after(error, datetime.now(UTC))
        place = None if step is None else self._app[WRITER].reserve_now()
        if step is None or place is None:
            return None
        try:
            self._call.absorb(place, provider_ending(error))
        finally:
            place.release()
        return step.pause_s

    async def _is_awaited_after(self, pause_s: float) -> bool:
        """Whether the client is still there after the pause, which ends when it leaves."""
        try:
            async with Departure(self._request, patience_s=0.0):
                await asyncio.sleep(pause_s)
        except ClientLeft:
            return False
        return not has_left(self._request)


class _Heeded:
    """Inside runs the attempt of ``ticket``; the plan hears of its failure. Every call passes here, and a
    class costs it a third of what a generator does."""

    def __init__(self, plan: Plan, ticket: Ticket) -> None:
        self._plan = plan
        self._ticket = ticket

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, ProviderError):
            self._plan.heed(self._ticket, error, datetime.now(UTC))


async def _by(deadline: float, answering: Awaitable[T]) -> T:
    async with in_time(deadline):
        return await answering
