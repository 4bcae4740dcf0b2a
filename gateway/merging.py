"""What several workers say of themselves, told as one: ledgers in sum, metrics by their kind.

Takes and gives values that JSON can hold, for they travel between processes. No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, TypeAlias, TypedDict

from prometheus_client import CollectorRegistry, Metric, generate_latest

from backends import LedgerCounts

UNREACHABLE: Final = "unreachable"
"""The state of a worker that does not answer, or is being replaced."""

_COUNTS = (*(each.name for each in fields(LedgerCounts)), "unaccounted")
_STATES = ("failed", "draining", "new", "running", "closed", UNREACHABLE)
"""The first of these that any worker is in is the state of all."""
_LARGEST = frozenset(("gateway_log_oldest_row_seconds", "gateway_log_breaker_state", "gateway_log_degraded"))
"""Gauges of which the largest tells of all; the others are sums."""
_LASTING = frozenset(("counter", "histogram"))

Ledger: TypeAlias = Mapping[str, Any]
Sample: TypeAlias = tuple[str, dict[str, str], float]


class Family(TypedDict):
    """One metric with all its samples. ``name`` is without the ``_total`` of a counter."""

    name: str
    help: str
    type: str
    samples: Sequence[Sample]


Snapshot: TypeAlias = list[Family]


def total(ledgers: Sequence[Ledger]) -> dict[str, Any]:
    """``ledgers`` as one, without those that say nothing. Of several, none has the ``boot_id``."""
    heard = [each for each in ledgers if each["state"] != UNREACHABLE]
    shed: Counter[str] = Counter()
    for each in heard:
        shed.update(each["shed"])
    counts = {name: sum(each[name] for each in heard) for name in _COUNTS}
    unaccounted = counts.pop("unaccounted")
    return {
        "state": min((each["state"] for each in heard), key=_STATES.index, default=UNREACHABLE),
        "strategy": heard[0]["strategy"] if heard else None,
        "boot_id": ledgers[0]["boot_id"] if len(ledgers) == 1 else None,
        **counts,
        "shed": dict(shed),
        "unaccounted": unaccounted,
        "oldest_row_s": max((each["oldest_row_s"] for each in heard), default=0.0),
    }


def snapshot(families: Iterable[Metric]) -> Snapshot:
    """Metrics as they stand."""
    return [
        Family(
            name=each.name,
            help=each.documentation,
            type=each.type,
            samples=[(sample.name, sample.labels, sample.value) for sample in each.samples],
        )
        for each in families
    ]


def gauge(name: str, text: str, label: str, values: Mapping[str, int]) -> Family:
    """One gauge, by one label."""
    return Family(
        name=name, help=text, type="gauge", samples=[(name, {label: key}, values[key]) for key in values]
    )


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One of many: counters, histograms and most gauges in sum."""
    merging: dict[str, _Merging] = {}
    for each in snapshots:
        for family in each:
            merging.setdefault(family["name"], _Merging(family)).add(family["samples"])
    return [each.family() for each in merging.values()]


def lasting(one: Snapshot) -> Snapshot:
    """What stays true of a process that says no more: what it has counted, not how it stands."""
    return [family for family in one if family["type"] in _LASTING]


def exposition(one: Snapshot) -> bytes:
    """The text for Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Fixed(one))
    return generate_latest(registry)


class _Merging:
    def __init__(self, family: Family) -> None:
        self._family = family
        self._combine = max if family["name"] in _LARGEST else _sum
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def add(self, samples: Sequence[Sample]) -> None:
        for name, labels, value in samples:
            key = (name, tuple(labels.items()))
            known = self._values.get(key)
            self._values[key] = value if known is None else self._combine(known, value)

    def family(self) -> Family:
        samples = [(name, dict(labels), value) for (name, labels), value in self._values.items()]
        return Family(
            name=self._family["name"], help=self._family["help"], type=self._family["type"], samples=samples
        )


def _sum(one: float, other: float) -> float:
    return one + other


class _Fixed:
    def __init__(self, one: Snapshot) -> None:
        self._snapshot = one

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        for family in self._snapshot:
            metric = Metric(family["name"], family["help"], family["type"])
            for name, labels, value in family["samples"]:
                metric.add_sample(name, labels, value)
            yield metric
