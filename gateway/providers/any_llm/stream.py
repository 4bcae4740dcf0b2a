"""The SDK's stream as one of ours.

Takes the chunks of the SDK; gives events. One chunk is read ahead at most, by a task of its own: the SDK ends
a stream whose reader is cancelled, and ours only stop waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias

from ...formats import format_at
from ..base import Event
from ..errors import ProviderError, ProviderStreamCut, ProviderTimeout, ProviderUnreachable
from ..stream import EVENTS
from .errors import typed
from .told import CHAT, DONE, ends, event_of

Step: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Coroutine[Any, Any, Any]]
"""Runs what it is given, where that may run."""

_CLOSING_S = 0.5
"""What the SDK may take to close a connection."""


async def next_of(chunks: AsyncIterator[Any]) -> Any:
    """The next chunk; None at the end."""
    return await anext(chunks, None)


async def close_of(chunks: Any) -> None:
    """The end of a stream that may not be over."""
    if (close := getattr(chunks, "aclose", None)) is not None:
        await close()


class SdkStream:
    """See ``EventStream``. ``step`` runs one step of the SDK's; a chunk may take ``timeout_s``."""

    content_type = EVENTS

    def __init__(
        self,
        endpoint: str,
        chunks: AsyncIterator[Any],
        step: Step,
        *,
        api_key: str,
        timeout_s: float,
    ) -> None:
        self._endpoint = endpoint
        self._chunks = chunks
        self._step = step
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._pending: asyncio.Task[Any] | None = None
        self._due = 0.0
        self._has_ended = False
        self._is_done = False

    def __aiter__(self) -> SdkStream:
        return self

    async def __anext__(self) -> list[Event]:
        if self._is_done:
            raise StopAsyncIteration
        await self._arrived()
        event = self._event(self._taken(ProviderStreamCut))
        self._is_done = event.is_done
        return [event]

    async def begin(self) -> None:
        """Wait for the first chunk, which is kept for the reader. Raises ``ProviderError``: a provider whose
        SDK asks it only then has had its say."""
        await self._arrived()
        if self._pending is not None and self._pending.exception() is not None:
            self._taken(ProviderUnreachable)

    async def close(self) -> None:
        """Leave the stream, wherever it is. Raises nothing but a cancel."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_S):
                if self._pending is not None:
                    self._pending.cancel()
                    await asyncio.gather(self._pending, return_exceptions=True)
                with suppress(Exception):
                    await self._step(lambda: close_of(self._chunks))

    async def _arrived(self) -> None:
        """Wait for the task that reads, without ever cancelling it. Raises ``ProviderTimeout``."""
        loop = asyncio.get_running_loop()
        if self._pending is None:
            self._pending = loop.create_task(self._step(lambda: next_of(self._chunks)))
            self._due = loop.time() + self._timeout_s
        done, _ = await asyncio.wait({self._pending}, timeout=max(0.0, self._due - loop.time()))
        if not done:
            raise ProviderTimeout("The provider did not answer in time.")

    def _taken(self, lost: type[ProviderError]) -> Any:
        """What the task has read. Raises ``ProviderError``; ``lost`` for a connection that broke."""
        assert self._pending is not None
        pending, self._pending = self._pending, None
        try:
            return pending.result()
        except Exception as error:
            raise typed(error, self._api_key, lost) from error

    def _event(self, chunk: Any) -> Event:
        if chunk is None:
            return self._last()
        self._has_ended = self._has_ended or ends(chunk)
        return format_at(self._endpoint).read_event(event_of(self._endpoint, chunk), self._api_key)

    def _last(self) -> Event:
        """The SDK does not tell a stream that is over from one that breaks off in good order."""
        if self._endpoint == CHAT and self._has_ended:
            return Event(DONE, is_done=True)
        raise ProviderStreamCut("The provider's stream ended before its last event.")
