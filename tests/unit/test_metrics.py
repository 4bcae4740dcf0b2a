from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from backends import LedgerCounts, NoopLogWriter, UsageRecord, WriterStats
from gateway.metrics import Metrics

RECORD = UsageRecord(
    id=uuid.uuid4(),
    request_id="r",
    timestamp=datetime(2026, 1, 1, tzinfo=UTC),
    endpoint="/v1/chat/completions",
    status="success",
    end_reason="complete",
    status_code=200,
    user_id="someone",
    provider="local",
    model="fake",
    prompt_tokens=10,
    completion_tokens=5,
    total_tokens=15,
    cached_tokens=4,
    reasoning_tokens=2,
    cost=Decimal("0.000000012"),
    latency_ms=1500.0,
    ttft_ms=20.0,
    stream=True,
)
CALL = {"provider": "local", "model": "fake"}


class Writer:
    """A writer whose ledger stands as it is told."""

    def __init__(self, stats: WriterStats) -> None:
        self._stats = stats

    def stats(self) -> WriterStats:
        return self._stats


@pytest.fixture
def metrics():
    return Metrics()


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def sample_names(metrics):
    text = metrics.render()[0].decode()
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_a_call_is_counted_by_endpoint_provider_and_status(metrics):
    metrics.call_finished(RECORD, 0.001, is_known_model=True)
    metrics.call_finished(structs.replace(RECORD, status_code=502), 0.001, is_known_model=True)

    where = {"endpoint": "/v1/chat/completions", "provider": "local"}
    assert value(metrics, "gateway_requests_total", **where, status_code="200") == 1
    assert value(metrics, "gateway_requests_total", **where, status_code="502") == 1


def test_tokens_and_cost_are_summed_by_provider_and_model(metrics):
    metrics.call_finished(RECORD, 0.001, is_known_model=True)
    metrics.call_finished(RECORD, 0.001, is_known_model=True)

    tokens = {
        kind: value(metrics, "gateway_tokens_total", **CALL, type=kind)
        for kind in ("prompt", "completion", "cached", "reasoning")
    }
    assert tokens == {"prompt": 20, "completion": 10, "cached": 8, "reasoning": 4}
    assert value(metrics, "gateway_cost_usd_total", **CALL) == pytest.approx(2.4e-8)


def test_durations_are_in_seconds(metrics):
    metrics.call_finished(RECORD, 0.25, is_known_model=True)

    assert value(metrics, "gateway_request_seconds_sum") == 1.5
    assert value(metrics, "gateway_ttft_seconds_sum") == pytest.approx(0.02)
    assert value(metrics, "gateway_overhead_seconds_sum") == 0.25


def test_a_model_that_is_neither_configured_nor_priced_is_no_label(metrics):
    metrics.call_finished(structs.replace(RECORD, model="made-up-by-a-client"), 0.0, is_known_model=False)

    assert b"made-up-by-a-client" not in metrics.render()[0]
    assert value(metrics, "gateway_tokens_total", provider="local", model="other", type="prompt") == 10


def test_no_user_is_a_label(metrics):
    metrics.call_finished(RECORD, 0.0, is_known_model=True)

    assert b"someone" not in metrics.render()[0]


def test_a_row_of_which_little_is_known_is_counted_all_the_same(metrics):
    bare = UsageRecord(
        id=uuid.uuid4(),
        request_id="r",
        timestamp=RECORD.timestamp,
        endpoint="/v1/embeddings",
        status="error",
        end_reason="internal_error",
    )

    metrics.call_finished(bare, -0.1, is_known_model=False)
    metrics.call_finished(
        structs.replace(bare, prompt_tokens=-1, cost=Decimal(-1)), 0.0, is_known_model=False
    )

    labels = {"endpoint": "/v1/embeddings", "provider": "", "status_code": ""}
    assert value(metrics, "gateway_requests_total", **labels) == 2
    assert value(metrics, "gateway_ttft_seconds_count") == 0
    assert "gateway_tokens_total" not in sample_names(metrics)


def test_a_refusal_is_counted_without_a_provider(metrics):
    metrics.request_refused("/v1/chat/completions", 401)

    labels = {"endpoint": "/v1/chat/completions", "provider": "", "status_code": "401"}
    assert value(metrics, "gateway_requests_total", **labels) == 1


def test_flushes_are_counted_by_outcome(metrics):
    metrics.flushed("sqlite", "ok", 100, 0.02)
    metrics.flushed("sqlite", "timeout", 50, 10.0)

    assert value(metrics, "gateway_log_flush_seconds_count", sink="sqlite", outcome="ok") == 1
    assert value(metrics, "gateway_log_flush_seconds_sum", sink="sqlite", outcome="timeout") == 10.0
    assert value(metrics, "gateway_log_batch_rows_sum", sink="sqlite") == 150


def test_a_ping_is_no_batch(metrics):
    metrics.flushed("sqlite", "ok", 0, 0.02)

    assert value(metrics, "gateway_log_flush_seconds_count", sink="sqlite", outcome="ok") == 1
    assert value(metrics, "gateway_log_batch_rows_count", sink="sqlite") is None


def test_every_durable_row_is_one_observation(metrics):
    metrics.durable([0.1, 0.2, 0.3])
    metrics.durable([])

    assert value(metrics, "gateway_log_durable_seconds_count") == 3
    assert value(metrics, "gateway_log_durable_seconds_sum") == pytest.approx(0.6)


def test_the_ledger_is_read_at_every_scrape(metrics):
    counts = LedgerCounts(accepted=10, committed=6, duplicates=1, queued=2, in_flight=1)
    writer = Writer(
        WriterStats(
            state="running",
            strategy="batch:sqlite",
            boot_id=uuid.uuid4(),
            counts=counts,
            shed={"queue_full": 3},
            oldest_row_s=1.5,
            queue_rows=4,
            queue_bytes=4096,
            breaker="half_open",
            degraded={"sink_down": "08006"},
        )
    )

    metrics.watch(writer)

    rows = {state: value(metrics, "gateway_log_rows", state=state) for state in ("accepted", "committed")}
    assert rows == {"accepted": 10, "committed": 6}
    assert value(metrics, "gateway_log_rows", state="unaccounted") == 0
    assert value(metrics, "gateway_log_shed_total", reason="queue_full") == 3
    assert value(metrics, "gateway_log_queue_rows") == 4
    assert value(metrics, "gateway_log_queue_bytes") == 4096
    assert value(metrics, "gateway_log_oldest_row_seconds") == 1.5
    assert value(metrics, "gateway_log_breaker_state", sink="sqlite") == 1
    assert value(metrics, "gateway_log_degraded", reason="sink_down") == 1


@pytest.mark.parametrize(("breaker", "number"), [("closed", 0), ("half_open", 1), ("open", 2)])
def test_the_breaker_is_a_number(metrics, breaker, number):
    counts = LedgerCounts()
    metrics.watch(
        Writer(
            WriterStats(
                state="running", strategy="batch:mongo", boot_id=uuid.uuid4(), counts=counts, breaker=breaker
            )
        )
    )

    assert value(metrics, "gateway_log_breaker_state", sink="mongo") == number


def test_noop_has_a_ledger_of_zeros_and_no_sink(metrics):
    metrics.watch(NoopLogWriter())

    assert value(metrics, "gateway_log_rows", state="accepted") == 0
    assert "gateway_log_breaker_state" not in sample_names(metrics)


def test_running_pumps_are_a_gauge(metrics):
    pumps = ["one", "two"]

    metrics.watch_pumps(pumps.__len__)
    assert value(metrics, "gateway_stream_pumps") == 2

    pumps.clear()
    assert value(metrics, "gateway_stream_pumps") == 0


def test_all_names_of_the_contract_are_there(metrics):
    metrics.watch(
        Writer(
            replace(
                NoopLogWriter().stats(), strategy="batch:sqlite", shed={"draining": 1}, degraded={"x": ""}
            )
        )
    )
    metrics.call_finished(RECORD, 0.001, is_known_model=True)
    metrics.flushed("sqlite", "ok", 1, 0.1)
    metrics.durable([0.1])

    names = sample_names(metrics)
    assert {
        "gateway_requests_total",
        "gateway_request_seconds_count",
        "gateway_overhead_seconds_count",
        "gateway_ttft_seconds_count",
        "gateway_tokens_total",
        "gateway_cost_usd_total",
        "gateway_log_rows",
        "gateway_log_shed_total",
        "gateway_log_queue_rows",
        "gateway_log_queue_bytes",
        "gateway_log_oldest_row_seconds",
        "gateway_log_flush_seconds_count",
        "gateway_log_batch_rows_count",
        "gateway_log_durable_seconds_count",
        "gateway_log_breaker_state",
        "gateway_log_degraded",
    } <= names
    assert not any(name.endswith("_created") for name in names)


def test_two_applications_in_one_process_count_apart():
    first, second = Metrics(), Metrics()

    first.request_refused("other", 404)

    assert b"404" in first.render()[0]
    assert b"404" not in second.render()[0]


def test_the_content_type_is_the_one_of_the_text_format(metrics):
    assert metrics.render()[1].startswith("text/plain; version=0.0.4")
