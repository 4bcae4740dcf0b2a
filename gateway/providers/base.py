"""What the gateway asks of a provider, whatever its dialect.

Takes the path of an endpoint and a body as bytes; gives an answer or a stream of events, or raises one
of the errors of ``errors.py`` and no other. Never retries: a call that may have been paid for is sent once.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ..token_usage import TokenUsage


@dataclass(frozen=True, slots=True)
class Answer:
    """A plain answer with a 2xx ``status`` whose ``body`` is a JSON object, as the bytes it came as."""

    status: int
    body: bytes = field(repr=False)
    content_type: str
    usage: TokenUsage | None


class Event(NamedTuple):
    """One whole server-sent event; ``raw`` are its bytes with the empty line behind it.

    ``is_usage_only``: it carries counts and no choices, as sent only on demand. ``is_done``: the last one.
    ``is_error``: the provider gave up; ``error_message`` is what it said, redacted.
    """

    raw: bytes
    usage: TokenUsage | None = None
    is_usage_only: bool = False
    is_done: bool = False
    is_error: bool = False
    error_message: str = ""


class EventStream(Protocol):
    """The events of one answer, in order, for one reader.

    Ends behind the event with ``is_done``. Raises ``ProviderStreamCut`` when the stream ends before it,
    ``ProviderTimeout`` after a silence of the provider's, ``ProviderMalformed`` for what is no event.
    A cancelled read loses no event: the next one goes on where it stopped.
    """

    def __aiter__(self) -> EventStream: ...

    async def __anext__(self) -> Event: ...


class Provider(Protocol):
    """One configured provider, open for calls. Safe for any number of calls at once."""

    @property
    def name(self) -> str:
        """As it stands in the configuration and in the rows."""
        ...

    async def send(self, endpoint: str, body: bytes, request_id: str | None = None) -> Answer:
        """Send ``body`` to ``endpoint`` (``/v1/embeddings``) once and wait for the whole answer.

        Raises ``ProviderError``. Cancelling closes the connection; the provider may bill all the same.
        """
        ...

    def stream(
        self, endpoint: str, body: bytes, request_id: str | None = None
    ) -> AbstractAsyncContextManager[EventStream]:
        """Send ``body`` once; entering waits for the head of the answer and raises ``ProviderError``.

        Leaving before the end closes the connection, which tells the provider to stop.
        """
        ...
