"""Our counters and histograms say what the client library's own would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.tallies import Distribution, Tally

BOUNDS = (0.5, 1, 2.5)


def samples(collector):
    return sorted(
        (each.name, tuple(sorted(each.labels.items())), each.value)
        for family in collector.collect()
        for each in family.samples
        if not each.name.endswith("_created")
    )


@given(st.lists(st.sampled_from([0, 0.25, 0.5, 0.75, 1, 2.5, 3, 1e9])))
def test_a_distribution_reads_as_a_histogram(values):
    theirs = Histogram("seconds", "Text.", buckets=BOUNDS, registry=CollectorRegistry())
    ours = Distribution("seconds", "Text.", BOUNDS)

    for value in values:
        theirs.observe(value)
        ours.observe(value)

    assert samples(ours) == samples(theirs)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 9))))
def test_a_tally_reads_as_a_counter(amounts):
    theirs = Counter("calls_total", "Text.", ("one", "other"), registry=CollectorRegistry())
    ours = Tally("calls", "Text.", ("one", "other"))

    for one, other, amount in amounts:
        theirs.labels(one, other).inc(amount)
        ours.add((one, other), amount)

    assert samples(ours) == samples(theirs)
