"""How the targets are doing: calls under way, how fast they answer, and which are left alone for a while.

Takes the beginning and the end of every attempt; gives what a selection needs to know. A target that failed
several times in a row cools down; then a single call tries it, and decides whether it is back. Awaits
nothing; the clock and the dice are given. Targets that no name leads to are not remembered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from types import TracebackType

log = logging.getLogger("gateway.routing")

NEWEST_SHARE = 0.2
"""What one more answer counts for in the latency of a target."""
SPREAD = 0.2
"""By this part a cooldown is longer or shorter, so that not all processes try a target at once."""


@dataclass(slots=True, eq=False)
class _Standing:
    """One target. ``cools_until``: not None from a cooldown's beginning to its end by a good answer;
    ``trials`` are the attempts under way that may end it. ``latency_s`` of plain answers and of the first
    bytes of streams."""

    key: str
    in_flight: int = 0
    failures: int = 0
    cools_until: float | None = None
    trials: int = 0
    latency_s: dict[bool, float] = field(default_factory=dict)


class Health:
    """The standings of all targets of one process. ``clock`` in seconds."""

    def __init__(
        self,
        keys: Iterable[str],
        *,
        failures: int,
        cooldown_s: float,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._standings = {key: _Standing(key) for key in keys}
        self._failures = failures
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._rng = rng

    def is_open(self, key: str) -> bool:
        """Whether the target is to have calls now; one after its cooldown, until that is answered."""
        standing = self._of(key)
        if standing.cools_until is None:
            return True
        return self._clock() >= standing.cools_until and standing.trials == 0

    def cools_until(self, key: str) -> float:
        """When the target's cooldown ends or ended, by the clock; 0 if there is none."""
        return self._of(key).cools_until or 0.0

    def in_flight(self, key: str) -> int:
        """The attempts under way."""
        return self._of(key).in_flight

    def latency_s(self, key: str, *, stream: bool) -> float | None:
        """What an answer takes of late, of a stream its first byte; None if there was none yet."""
        return self._of(key).latency_s.get(stream)

    def begin(self, key: str, *, stream: bool) -> Ticket:
        """An attempt begins; to be closed."""
        return Ticket(self, self._of(key), stream, self._clock())

    def _of(self, key: str) -> _Standing:
        return self._standings.get(key) or _Standing(key)

    def _note_latency(self, standing: _Standing, stream: bool, began: float) -> None:
        newest = self._clock() - began
        known = standing.latency_s.get(stream, newest)
        standing.latency_s[stream] = known + NEWEST_SHARE * (newest - known)

    def _note_failure(self, standing: _Standing, is_trial: bool, rest_s: float) -> None:
        standing.failures += 1
        if is_trial or standing.failures >= self._failures:
            rest_s = self._cooldown_s * self._rng.uniform(1 - SPREAD, 1 + SPREAD)
        rest_s = min(rest_s, self._cooldown_s * (1 + SPREAD))
        if rest_s > 0:
            if standing.cools_until is None:
                extra = {"target": standing.key, "for_s": round(rest_s, 1), "failures": standing.failures}
                log.warning("target_cools_down", extra=extra)
            standing.cools_until = self._clock() + rest_s


class Ticket:
    """One attempt at a target. Every method may be repeated; after ``close`` none does anything."""

    def __init__(self, health: Health, standing: _Standing, stream: bool, began: float) -> None:
        self._health = health
        self._standing = standing
        self._stream = stream
        self._began = began
        self._is_open = True
        self._is_answered = False
        self._is_failed = False
        self._is_trial = standing.cools_until is not None
        standing.in_flight += 1
        standing.trials += self._is_trial

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def answer(self) -> None:
        """The target answers, or its stream has begun: after a cooldown, it is back."""
        if self._is_open and not self._is_answered:
            self._is_answered = True
            self._health._note_latency(self._standing, self._stream, self._began)
            self._end_cooldown()

    def succeed(self) -> None:
        """The target did what it should, or refused for a reason of the client's."""
        if self._is_open and not self._is_failed:
            self._end_cooldown()
            if self._standing.cools_until is None:
                self._standing.failures = 0

    def fail(self, rest_s: float = 0.0) -> None:
        """The target failed, and wants to be left alone for ``rest_s`` seconds. What began before a cooldown
        does not prolong it."""
        is_heard = self._is_trial or self._standing.cools_until is None
        if self._is_open and not self._is_failed and is_heard:
            self._health._note_failure(self._standing, self._is_trial, rest_s)
        self._is_failed = True

    def close(self) -> None:
        """The attempt is over. Without a word before, it says nothing about the target."""
        if self._is_open:
            self._is_open = False
            self._standing.in_flight -= 1
            self._end_trial()

    def _end_cooldown(self) -> None:
        if self._is_trial and not self._is_failed:
            self._end_trial()
            self._standing.cools_until = None
            self._standing.failures = 0
            log.info("target_recovered", extra={"target": self._standing.key})

    def _end_trial(self) -> None:
        self._standing.trials -= self._is_trial
        self._is_trial = False
