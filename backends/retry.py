"""When to try again: back-off and circuit breaker, as pure state.

Takes outcomes and the time, gives the next time. Never waits, never looks at a clock.
"""

from __future__ import annotations

from random import Random
from typing import Literal

# Source of the numbers: the study of Kafka's, Vector's and the OTel collector's defaults in the design.
BASE_S = 0.1
CAP_RUNNING_S = 30.0
CAP_DRAINING_S = 1.0
FAILURES_TO_OPEN = 5


class Backoff:
    """Full jitter: uniform in 0 .. min(cap, 0.1 s * 2^attempt)."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def delay(self, attempts: int, cap_s: float) -> float:
        """Seconds to wait after ``attempts`` (1, 2, ...) failed tries."""
        return self._rng.uniform(0, ceiling(attempts, cap_s))

    def pause(self, failures: int) -> float:
        """Seconds the breaker stays open after ``failures`` in a row: the upper half of the range, so that
        a sink that is down is left alone."""
        top = ceiling(failures, CAP_RUNNING_S)
        return self._rng.uniform(top / 2, top)


def ceiling(attempts: int, cap_s: float) -> float:
    """The largest delay after ``attempts`` failed tries, in seconds."""
    return min(cap_s, BASE_S * 2.0 ** min(attempts, 32))


class Breaker:
    """Spares a sink that keeps failing: ``closed``, ``open``, or ``half_open`` with one probe under way."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self.state: Literal["closed", "open", "half_open"] = "closed"
        self.probe_at = 0.0

    def admits(self, now: float) -> bool:
        """Whether an attempt may begin now."""
        return self.state == "closed" or (self.state == "open" and now >= self.probe_at)

    def attempt(self) -> None:
        """An attempt begins: in ``open`` it is the probe."""
        if self.state == "open":
            self.state = "half_open"

    def succeed(self) -> None:
        """The sink answered: a refusal of rows counts, it proves that the sink is there."""
        self._failures = 0
        self.state = "closed"

    def fail(self, now: float) -> None:
        """One more failure in a row; the fifth opens, a failed probe opens again."""
        self._failures += 1
        if self.state != "closed" or self._failures >= FAILURES_TO_OPEN:
            self._open(now)

    def trip(self, now: float) -> None:
        """Open at once: trying harder will not mend credentials or a schema."""
        self._failures = max(self._failures + 1, FAILURES_TO_OPEN)
        self._open(now)

    def probe_now(self, now: float) -> None:
        """Let the next attempt through as the probe, whatever the pause."""
        if self.state == "open":
            self.probe_at = now

    def _open(self, now: float) -> None:
        self.state = "open"
        self.probe_at = now + self._backoff.pause(self._failures)
