"""What a writer tells of itself: the live ledger, the end of a flush, the end of its life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias
from uuid import UUID

WriterState: TypeAlias = Literal["new", "running", "draining", "closed", "failed"]
StopOutcome: TypeAlias = Literal["drained", "sink_down", "deadline", "aborted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCounts:
    """The ledger at one instant, in rows."""

    accepted: int = 0
    recovered: int = 0
    committed: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    spooled: int = 0
    abandoned: int = 0
    queued: int = 0
    in_flight: int = 0

    @property
    def unaccounted(self) -> int:
        """The difference of the equation's two sides. Anything but 0 is a bug."""
        settled = self.committed + self.duplicates + self.dead_lettered + self.spooled + self.abandoned
        return self.accepted - settled - self.queued - self.in_flight


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterStats:
    """A writer at one instant. ``shed`` counts, by reason, the calls that never got a place.

    ``degraded`` maps what is wrong to a word on it; ``would_refuse`` is the reason for which the next call
    would be answered 503, or None. ``oldest_row_s`` is the age in seconds of the oldest unsettled row;
    ``queue_rows`` and ``queue_bytes`` are what counts against the bounds: queue, flights and places.
    """

    state: WriterState
    strategy: str
    boot_id: UUID
    counts: LedgerCounts
    shed: Mapping[str, int] = field(default_factory=dict)
    oldest_row_s: float = 0.0
    queue_rows: int = 0
    queue_bytes: int = 0
    breaker: Literal["closed", "open", "half_open"] = "closed"
    degraded: Mapping[str, str] = field(default_factory=dict)
    would_refuse: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields of ``GET /v1/log-writer``."""
        return {
            "state": self.state,
            "strategy": self.strategy,
            "boot_id": str(self.boot_id),
            **asdict(self.counts),
            "shed": dict(self.shed),
            "unaccounted": self.counts.unaccounted,
            "oldest_row_s": round(self.oldest_row_s, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushReport:
    """``ok``: every row accepted before the flush is settled. ``rows_left`` are those that are not."""

    outcome: Literal["ok", "timed_out", "failed"]
    rows_left: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReport:
    """The whole ledger at the end, and how the end came.

    ``drained``: everything was delivered. ``sink_down``: the one probe of an open breaker failed.
    ``deadline``: time ran out. ``aborted``: the process was told to end at once.
    """

    stats: WriterStats
    outcome: StopOutcome
    duration_s: float
    ids_sample: Sequence[UUID] = ()

    @property
    def is_clean(self) -> bool:
        """Whether no row was ever abandoned and none is unaccounted for."""
        return not self.stats.counts.abandoned and not self.stats.counts.unaccounted

    def to_json(self) -> dict[str, Any]:
        """The fields of the ``shutdown_report`` line."""
        return {
            **self.stats.to_json(),
            "duration_s": round(self.duration_s, 3),
            "clean": self.is_clean,
        }


class WriterObserver(Protocol):
    """Hears of every attempt and of rows made durable; for metrics. Must not raise."""

    def flushed(self, sink: str, outcome: str, rows: int, seconds: float) -> None:
        """An attempt of ``rows`` rows ended after ``seconds``: ``ok``, ``retryable``, ``rejected``,
        ``fatal``, ``timeout`` or ``cancelled``."""
        ...

    def durable(self, seconds: Sequence[float]) -> None:
        """Rows were committed, each so many ``seconds`` after it was accepted."""
        ...


class NoObserver:
    """Nobody listens."""

    def flushed(self, sink: str, outcome: str, rows: int, seconds: float) -> None:
        """See ``WriterObserver``."""

    def durable(self, seconds: Sequence[float]) -> None:
        """See ``WriterObserver``."""
