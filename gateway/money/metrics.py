"""What Prometheus sees of money, beside what calls cost."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class MoneyMetrics:
    """``waiting`` answers how many settlements the store has not taken yet."""

    def __init__(self, registry: CollectorRegistry, waiting: Callable[[], int]) -> None:
        self._refusals = Counter(
            "gateway_budget_refusals", "Calls that a budget had no room for.", registry=registry
        )
        gauge = Gauge(
            "gateway_settlements_waiting",
            "Calls that ended and are not charged to their budget yet.",
            registry=registry,
        )
        gauge.set_function(waiting)

    def refused(self) -> None:
        """Count one call that was refused for its budget."""
        self._refusals.inc()
