"""One call, from its place to its row.

Takes what is known when the call begins and what is learnt on the way; gives exactly one usage row, put
synchronously, whatever ended the call. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol
from uuid import UUID, uuid4

from backends import EndReason, Place, Status, UsageRecord, UsageSource

from .pricing import Price, cost
from .providers.base import Event
from .routing import Route
from .token_usage import TokenUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended. ``status_code`` is the HTTP status sent, 499 when the client had gone."""

    status: Status
    end_reason: EndReason
    status_code: int
    error_code: str | None = None
    error_message: str | None = None


COMPLETE = Ending(status="success", end_reason="complete", status_code=200)
CLIENT_LEFT = Ending(status="cancelled", end_reason="client_disconnect", status_code=499)
SHUTDOWN = Ending(status="cancelled", end_reason="shutdown", status_code=503, error_code="shutting_down")
BUG = Ending(status="error", end_reason="internal_error", status_code=500, error_code="internal_error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a call when it begins. ``tags`` is the text of a JSON object."""

    request_id: str
    endpoint: str
    route: Route
    stream: bool
    price: Price | None
    api_key_id: str | None = None
    user_id: str | None = None
    tags: str | None = None


class CallObserver(Protocol):
    """Hears of every call that ended; for metrics. Must not raise."""

    def call_finished(self, record: UsageRecord, overhead_s: float, is_known_model: bool) -> None:
        """``overhead_s``: seconds of the call not spent waiting for the provider."""
        ...


@dataclass(slots=True)
class Call:
    """A call under way. ``place`` is None for a call served without a row; ``status_sent`` is the HTTP status
    once a stream's head has gone out: nothing that happens later changes it."""

    facts: Facts
    place: Place | None
    observer: CallObserver
    estimate_cost: bool = False
    usage: TokenUsage | None = None
    estimate: TokenUsage | None = None
    is_whole: bool = False
    status_sent: int | None = None
    waited_s: float = 0.0
    ttft_s: float | None = None
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    _is_finished: bool = False

    @property
    def usage_id(self) -> UUID | None:
        """The id that is promised to the client, if there is a place behind it."""
        return self.place.id if self.place else None

    @property
    def is_finished(self) -> bool:
        """Whether the row has been put."""
        return self._is_finished

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, time is the provider's, not the gateway's."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.waited_s += time.monotonic() - began

    def see(self, event: Event) -> bool:
        """Learn from one event of the provider's stream; whether it was the last."""
        if self.ttft_s is None:
            self.ttft_s = time.monotonic() - self.began
        if event.usage is not None:
            self.usage = event.usage if self.usage is None else self.usage.updated(event.usage)
        self.is_whole = event.is_done
        return event.is_done

    def finish(self, ending: Ending) -> None:
        """Make the row and hand it over. Synchronous, so that no cancel comes between; only the first
        ending counts."""
        if self._is_finished:
            return
        self._is_finished = True
        latency_s = time.monotonic() - self.began
        record = self._record(ending, latency_s)
        if self.place is not None:
            self.place.put(record)
        self.observer.call_finished(
            record, max(0.0, latency_s - self.waited_s), is_known_model=self.facts.price is not None
        )

    async def durable(self) -> None:
        """See ``Place.durable``."""
        if self.place is not None:
            await self.place.durable()

    def _record(self, ending: Ending, latency_s: float) -> UsageRecord:
        facts = self.facts
        usage, source = self._known_usage()
        return UsageRecord(
            id=self.usage_id or uuid4(),
            request_id=facts.request_id,
            timestamp=self.began_at,
            api_key_id=facts.api_key_id,
            user_id=facts.user_id,
            route=facts.route.name,
            provider=facts.route.provider,
            model=facts.route.model,
            endpoint=facts.endpoint,
            status=ending.status,
            end_reason=ending.end_reason,
            status_code=ending.status_code
            if ending is CLIENT_LEFT
            else self.status_sent or ending.status_code,
            error_code=ending.error_code,
            error_message=ending.error_message,
            stream=facts.stream,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            usage_source=source,
            cost=self._cost(usage, source),
            latency_ms=round(latency_s * 1000, 3),
            ttft_ms=None if self.ttft_s is None else round(self.ttft_s * 1000, 3),
            tags=facts.tags,
        )

    def _known_usage(self) -> tuple[TokenUsage, UsageSource]:
        if self.usage is not None:
            return self.usage, "provider" if self.is_whole else "partial"
        if self.estimate is not None:
            return self.estimate, "estimate"
        return TokenUsage(), "none"

    def _cost(self, usage: TokenUsage, source: UsageSource) -> Decimal | None:
        if self.facts.price is None or (source == "estimate" and not self.estimate_cost):
            return None
        return cost(self.facts.price, usage)


class RunningCalls:
    """The handlers that are at work on a call, so that a stop can wait for them, then end them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self.is_ending = False

    def __len__(self) -> int:
        return len(self._tasks)

    @contextmanager
    def track(self) -> Iterator[None]:
        """Inside, the current task is at work on a call."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def ended(self, within_s: float) -> bool:
        """Wait until the calls running now have ended, at most ``within_s`` seconds; whether they did."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=within_s)
        return not self._tasks

    def cancel(self) -> None:
        """End what is running: each call still has its row (``shutdown``)."""
        self.is_ending = True
        for task in self._tasks:
            task.cancel()
