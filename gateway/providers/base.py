"""What the gateway asks of a provider, whatever its dialect.

Takes the path of an endpoint and a payload; gives an answer or a stream of events, or raises one
of the errors of ``errors.py`` and no other. Never retries: a call that may have been paid for is sent once.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ..token_usage import TokenUsage


@dataclass(frozen=True, slots=True)
class Payload:
    """What is sent to a provider: a body, JSON unless the ``headers`` say otherwise."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A plain answer with a 2xx ``status`` whose ``body`` is what its endpoint promises, as the bytes it came
    as. ``images`` were made; ``has_text``: what the model wrote stands in it as text."""

    status: int
    body: bytes = field(repr=False)
    content_type: str
    usage: TokenUsage | None
    images: int = 0
    has_text: bool = True


class Event(NamedTuple):
    """One whole server-sent event; ``raw`` are its bytes with the empty line behind it.

    ``is_usage_only``: it carries counts and no choices, as sent only on demand. ``is_done``: the last one.
    ``is_error``: the provider gave up; ``error_message`` is what it said, redacted. An error that is the last
    event as well is the format's own and goes to the client as it is. ``has_text``: the model's text in it is
    new. ``images`` were made.
    """

    raw: bytes
    usage: TokenUsage | None = None
    is_usage_only: bool = False
    is_done: bool = False
    is_error: bool = False
    error_message: str = ""
    has_text: bool = True
    images: int = 0


class EventStream(Protocol):
    """The events of one answer, in order, for one reader: each time those that came together, at least one.

    Ends behind the event with ``is_done``, which is the last of its list. Raises ``ProviderStreamCut`` when
    the stream ends before it, ``ProviderTimeout`` after a silence of the provider's, ``ProviderMalformed``
    for what is no event. A cancelled read loses no event: the next one goes on where it stopped.
    ``content_type`` is what the client is told; where that is no stream of events, each ``raw`` is a piece of
    one body.
    """

    @property
    def content_type(self) -> str: ...

    def __aiter__(self) -> EventStream: ...

    async def __anext__(self) -> list[Event]: ...


class Provider(Protocol):
    """One configured provider, open for calls. Safe for any number of calls at once."""

    @property
    def name(self) -> str:
        """As it stands in the configuration and in the rows."""
        ...

    def offers(self, endpoint: str) -> bool:
        """Whether it has this endpoint at all."""
        ...

    async def send(self, endpoint: str, payload: Payload, request_id: str | None = None) -> Answer:
        """Send ``payload`` to ``endpoint`` (``/v1/embeddings``) once and wait for the whole answer.

        Raises ``ProviderError``. Cancelling closes the connection; the provider may bill all the same.
        """
        ...

    def stream(
        self, endpoint: str, payload: Payload, request_id: str | None = None
    ) -> AbstractAsyncContextManager[EventStream]:
        """Send ``payload`` once; entering waits for the head of the answer and raises ``ProviderError``.

        Leaving before the end closes the connection, which tells the provider to stop.
        """
        ...
