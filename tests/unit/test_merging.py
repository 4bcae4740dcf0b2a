from __future__ import annotations

import json
import socket

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from gateway.merging import UNREACHABLE, exposition, lasting, merged, snapshot, total
from gateway.port import held
from gateway.supervisor import exit_status

LEDGER = {
    "state": "running",
    "strategy": "batch:sqlite",
    "boot_id": "a",
    "accepted": 3,
    "recovered": 0,
    "committed": 1,
    "duplicates": 0,
    "dead_lettered": 0,
    "spooled": 0,
    "abandoned": 0,
    "queued": 2,
    "in_flight": 0,
    "shed": {"queue_full": 1},
    "unaccounted": 0,
    "oldest_row_s": 0.5,
}
SILENT = {"state": UNREACHABLE, "boot_id": "b"}


def travelled(registry):
    """A snapshot as it comes out of the other process."""
    return json.loads(json.dumps(snapshot(registry.collect())))


def samples(one):
    families = text_string_to_metric_families(exposition(one).decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_ledger_of_one_is_its_own():
    assert total([LEDGER]) == LEDGER


def test_ledgers_are_summed_but_for_ages_which_are_compared():
    other = {**LEDGER, "boot_id": "b", "accepted": 4, "committed": 2, "oldest_row_s": 2.5}
    other |= {"shed": {"queue_full": 1, "draining": 1}}

    summed = {"boot_id": None, "accepted": 7, "committed": 3, "queued": 4, "oldest_row_s": 2.5}
    assert total([LEDGER, other]) == {**LEDGER, **summed, "shed": {"queue_full": 2, "draining": 1}}


@pytest.mark.parametrize(("state", "of_both"), [("failed", "failed"), ("draining", "draining")])
def test_the_worst_state_of_any_is_the_state_of_all(state, of_both):
    assert total([LEDGER, {**LEDGER, "state": state}])["state"] == of_both


def test_a_ledger_that_nobody_heard_of_is_left_out():
    assert total([LEDGER, SILENT]) == {**LEDGER, "boot_id": None}
    assert total([SILENT, SILENT])["state"] == UNREACHABLE
    assert total([])["accepted"] == 0


def test_counters_and_histograms_are_summed_label_by_label():
    one, other = CollectorRegistry(), CollectorRegistry()
    for registry, kinds in ((one, ("a", "b")), (other, ("b", "c"))):
        counter = Counter("calls", "Calls.", ("kind",), registry=registry)
        seconds = Histogram("seconds", "Time.", ("kind",), buckets=(1, 10), registry=registry)
        for kind in kinds:
            counter.labels(kind).inc(2)
            seconds.labels(kind).observe(5)

    both = samples(merged([travelled(one), travelled(other)]))

    assert [both["calls_total", kind] for kind in "abc"] == [2, 4, 2]
    assert [both["seconds_count", kind] for kind in "abc"] == [1, 2, 1]
    assert [both["seconds_bucket", "b", edge] for edge in ("1.0", "10.0", "+Inf")] == [0, 2, 2]
    assert both["seconds_sum", "b"] == 10


@pytest.mark.parametrize(
    ("name", "of_both"),
    [
        ("gateway_log_queue_rows", 5),
        ("gateway_log_rows", 5),
        ("gateway_log_oldest_row_seconds", 3),
        ("gateway_log_breaker_state", 3),
        ("gateway_log_degraded", 3),
    ],
)
def test_gauges_are_summed_but_for_those_that_tell_of_the_worst(name, of_both):
    registries = []
    for value in (2, 3):
        registries.append(CollectorRegistry())
        Gauge(name, "A gauge.", registry=registries[-1]).set(value)

    assert samples(merged(map(travelled, registries))) == {(name,): of_both}


def test_what_lasts_of_a_process_that_is_gone_is_what_it_counted():
    registry = CollectorRegistry()
    Gauge("now", "A gauge.", registry=registry).set(2)
    Counter("ever", "A counter.", registry=registry).inc(3)

    assert samples(lasting(travelled(registry)))["ever_total",] == 3
    assert ("now",) not in samples(lasting(travelled(registry)))


@pytest.mark.parametrize(
    ("statuses", "of_all"),
    [([0, 0], 0), ([0, 3], 3), ([3, 1], 1), ([0, -9], 1), ([2, 0], 1), ([], 0)],
)
def test_the_exit_status_of_several_is_the_contracts(statuses, of_all):
    assert exit_status(statuses) == of_all


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_held_port_is_for_those_who_share_it(host):
    with held(host, 0) as port, socket.socket() as worker, socket.socket() as stranger:
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        worker.bind(("127.0.0.1", port))
        worker.listen()
        with pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        with pytest.raises(OSError, match="in use"), held("127.0.0.1", port):
            pass
