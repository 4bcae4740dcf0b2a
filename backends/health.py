"""How the sink does, as its answers tell: whether it may be asked, and what is wrong with it. Synchronous.

Takes outcomes; gives the breaker's state, the reasons why the writer is degraded, and, once stopping has
begun, whether waiting for the sink is of any use.
"""

from __future__ import annotations

import logging

from .errors import SinkError, SinkFatal
from .retry import Backoff, Breaker

log = logging.getLogger("backends.dispatch")


class SinkHealth:
    """One sink's. ``is_hopeless``: it was down before the stop and has failed its last chance."""

    def __init__(self, sink: str, backoff: Backoff) -> None:
        self.breaker = Breaker(backoff)
        self.degraded: dict[str, str] = {}
        self.is_hopeless = False
        self._sink = sink
        self._is_draining = False
        self._is_last_chance = False

    @property
    def ignores_breaker(self) -> bool:
        """While draining, trying until the deadline beats sparing the sink, unless it was down before."""
        return self._is_draining and not self._is_last_chance

    def admits(self, now: float) -> bool:
        """Whether the sink may be asked now."""
        return self.ignores_breaker or self.breaker.admits(now)

    def drain(self, now: float) -> None:
        """Stopping begins: an open breaker gets one probe, the last."""
        self._is_draining = True
        self._is_last_chance = self.breaker.state != "closed"
        self.breaker.probe_now(now)

    def answered(self) -> None:
        """The sink did what it was asked, or said for good that it will not: it is well."""
        self.breaker.succeed()
        self._is_last_chance = False
        down = self.degraded.pop("sink_down", None)
        if self.degraded.pop("sink_refuses", down):
            log.info("sink_answers", extra={"sink": self._sink})

    def failed(self, outcome: object, now: float) -> None:
        """Anything else came back than an answer."""
        code = outcome.code if isinstance(outcome, SinkError) else type(outcome).__name__
        if isinstance(outcome, SinkFatal):
            self.breaker.trip(now)
            self._show("sink_refuses", code)
        else:
            self.breaker.fail(now)
        if self.breaker.state == "open":
            self._show("sink_down", code)
        if self._is_last_chance:
            self.is_hopeless = True

    def _show(self, reason: str, code: str) -> None:
        if reason not in self.degraded:
            log.warning(reason, extra={"sink": self._sink, "code": code})
            self.degraded[reason] = code
