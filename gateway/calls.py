"""One call, from its place to its row.

Takes what is known when the call begins and what is learnt on the way; gives exactly one usage row, put
synchronously, whatever ended the call. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol
from uuid import UUID
from weakref import WeakSet

from msgspec import Struct, structs
from uuid_utils.compat import uuid7

from backends import Place, UsageRecord, UsageSource

from .endings import CLIENT_HAD_GONE, CRASH, SHUTDOWN, Ending
from .estimate import estimate, text_characters
from .pricing import Price, cost
from .providers.base import Answer, Event
from .routing import Route
from .token_usage import TokenUsage

log = logging.getLogger("gateway.calls")


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of a call when it begins. ``tags`` is the text of a JSON object; ``prompt_tokens`` are
    our own estimate, for a provider that counts none."""

    request_id: str
    endpoint: str
    route: Route
    stream: bool
    price: Price | None
    prompt_tokens: int = 0
    api_key_id: str | None = None
    user_id: str | None = None
    tags: str | None = None


class CallObserver(Protocol):
    """Hears of every call that ended; for metrics. Must not raise."""

    def call_finished(self, record: UsageRecord, overhead_s: float, is_known_model: bool) -> None:
        """``overhead_s``: seconds of the call not spent waiting for the provider."""
        ...

    def attempt_absorbed(self, record: UsageRecord, is_known_model: bool) -> None:
        """Of an attempt that failed, and that another one hid from the client."""
        ...


@dataclass(slots=True, eq=False, weakref_slot=True)
class Call:
    """A call under way. ``place`` is None for a call served without a row; ``status_sent`` is the HTTP status
    once a stream's head has gone out: nothing that happens later changes it. ``characters`` of the model's
    text are counted until the provider gives counts of its own. ``is_handed_over``: its handler has left it
    to somebody who will finish it. ``on_finish`` is called with the row once it is put, whatever ended the
    call; an error there is logged and costs nobody anything. ``row_id`` is what a place is to be taken under;
    ``images`` are those that were made."""

    facts: Facts
    place: Place | None
    observer: CallObserver
    estimate_cost: bool = False
    on_finish: list[Callable[[UsageRecord], None]] = field(default_factory=list)
    usage: TokenUsage | None = None
    is_whole: bool = False
    is_handed_over: bool = False
    characters: int = 0
    status_sent: int | None = None
    waited_s: float = 0.0
    ttft_s: float | None = None
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    row_id: UUID = field(default_factory=uuid7)
    images: int = 0
    absorbed: list[UsageRecord] = field(default_factory=list)
    """The rows of the attempts that were hidden, in ``places_beside``."""
    places_beside: list[Place] = field(default_factory=list)
    attempt_began: float = field(default_factory=time.monotonic)
    _is_finished: bool = False

    @property
    def usage_id(self) -> UUID | None:
        """The id that is promised to the client, if there is a place behind it."""
        return self.place.id if self.place else None

    @property
    def is_finished(self) -> bool:
        """Whether the row has been put."""
        return self._is_finished

    def see(self, event: Event) -> bool:
        """Learn from one event of the provider's stream; whether it was the last."""
        if self.ttft_s is None:
            self.ttft_s = time.monotonic() - self.began
        if event.usage is not None:
            self.usage = event.usage if self.usage is None else self.usage.updated(event.usage)
        elif self.usage is None and event.has_text:
            self.characters += text_characters(event.raw)
        self.images += event.images
        self.is_whole = event.is_done
        return event.is_done

    def see_answer(self, answer: Answer) -> None:
        """Learn from the provider's plain answer."""
        self.usage, self.is_whole, self.images = answer.usage, True, answer.images
        if answer.usage is None and answer.has_text:
            self.characters = text_characters(answer.body)

    def turn_to(self, route: Route, price: Price | None) -> None:
        """An attempt begins, which goes to ``route``; the name that was asked for stays."""
        if route is not self.facts.route or price is not self.facts.price:
            self.facts = structs.replace(self.facts, route=route, price=price)
        self.attempt_began = time.monotonic()

    def absorb(self, place: Place, ending: Ending) -> None:
        """The attempt under way failed, and another one hides that: put its row into ``place``, beside the
        call's own, and know nothing of an answer any more. Synchronous."""
        latency_s = time.monotonic() - self.attempt_began
        hidden = structs.replace(self._record(replace(ending, status="absorbed"), latency_s), id=place.id)
        place.put(hidden)
        self.absorbed.append(hidden)
        self.places_beside.append(place)
        self.usage, self.is_whole, self.ttft_s, self.characters, self.images = None, False, None, 0, 0
        self.observer.attempt_absorbed(hidden, is_known_model=self.facts.price is not None)

    def spent(self, row: UsageRecord) -> Decimal | None:
        """What the call costs in USD that ended with ``row``, with the attempts that were hidden."""
        known = [each.cost for each in (row, *self.absorbed) if each.cost is not None]
        return sum(known, Decimal(0)) if known else None

    def intent(self) -> UsageRecord:
        """The row as it would read if the process died during the call."""
        return self._record(CRASH, None)

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
        self._tell(record)
        self.observer.call_finished(
            record, max(0.0, latency_s - self.waited_s), is_known_model=self.facts.price is not None
        )

    def _tell(self, record: UsageRecord) -> None:
        for hear in self.on_finish:
            try:
                hear(record)
            except Exception:
                log.exception("finish_not_heard", extra={"request_id": self.facts.request_id})

    async def durable(self) -> None:
        """See ``Place.durable``; of all rows of the call."""
        for place in (*self.places_beside, self.place):
            if place is not None:
                await place.durable()

    def _record(self, ending: Ending, latency_s: float | None) -> UsageRecord:
        facts = self.facts
        usage, source, usd = self._known_use()
        return UsageRecord(
            id=self.usage_id or self.row_id,
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
            status_code=self._status_code(ending),
            error_code=ending.error_code,
            error_message=ending.error_message,
            stream=facts.stream,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            usage_source=source,
            cost=usd,
            latency_ms=None if latency_s is None else round(latency_s * 1000, 3),
            ttft_ms=None if self.ttft_s is None else round(self.ttft_s * 1000, 3),
            tags=facts.tags,
        )

    def _status_code(self, ending: Ending) -> int | None:
        is_unheard = ending.status_code == CLIENT_HAD_GONE
        return CLIENT_HAD_GONE if is_unheard else self.status_sent or ending.status_code

    def _known_use(self) -> tuple[TokenUsage, UsageSource, Decimal | None]:
        """Counts, where they are from, and what they cost. A bug in the reckoning must not cost the row."""
        try:
            usage, source = self._known_usage()
            return usage, source, self._cost(usage, source)
        except Exception:
            log.exception("usage_unknown", extra={"request_id": self.facts.request_id})
            return TokenUsage(), "none", None

    def _known_usage(self) -> tuple[TokenUsage, UsageSource]:
        if self.usage is not None:
            return self.usage.summed(), "provider" if self.is_whole else "partial"
        if self.is_whole:
            return estimate(self.facts.prompt_tokens, self.characters), "estimate"
        return TokenUsage(), "none"

    def _cost(self, usage: TokenUsage, source: UsageSource) -> Decimal | None:
        if self.facts.price is None or source == "none":
            return None
        is_known = source != "estimate" or self.estimate_cost
        return cost(self.facts.price, usage if is_known else TokenUsage(), self.images)


class RunningCalls:
    """The calls under way, so that a stop can wait for them, then end them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._calls: WeakSet[Call] = WeakSet()
        self.is_ending = False

    def __len__(self) -> int:
        return len(self._tasks)

    def track(self) -> None:
        """The current task, aiohttp's for one request, is at work on a call until its answer is sent."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def begin(self, call: Call) -> Call:
        """From here on ``call`` will have its row, whoever holds it."""
        self._calls.add(call)
        return call

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

    def end_now(self) -> None:
        """Every call gets its row here and now, those that the pumps hold too: nothing runs any more."""
        for call in tuple(self._calls):
            call.finish(SHUTDOWN.unheard() if call.is_handed_over else SHUTDOWN)
