"""Counters and histograms that a call can afford: plain numbers, made into metrics when somebody asks.

The client library's own take a lock and six calls for each number. Belongs to the event loop's thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import INF, floatToGoString


class Tally:
    """A counter by ``labels``, called ``name`` without the ``_total``."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._sums: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def add(self, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Count ``amount``, which is not negative, under these values of the labels."""
        self._sums[labels] += amount

    def collect(self) -> Iterator[CounterMetricFamily]:
        """How it stands."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, amount in self._sums.items():
            family.add_metric(labels, amount)
        yield family


class Distribution:
    """A histogram without labels. A value counts in the first bucket whose bound it does not exceed."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._bounds = (*bounds, INF)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """How it stands."""
        buckets = zip(map(floatToGoString, self._bounds), accumulate(self._counts), strict=True)
        yield HistogramMetricFamily(self._name, self._text, buckets=list(buckets), sum_value=self._sum)
