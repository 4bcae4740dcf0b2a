"""What Prometheus sees: counts of calls, and the writer's ledger read anew at every scrape.

Takes finished records, refusals and the writer's reports; gives the text of ``/metrics``. Labels are
bounded: route templates, configured providers, configured or priced models; never a user or a raw path.
Nothing here raises into a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from backends import LogWriter, UsageRecord, WriterStats

from .tallies import Distribution, Tally

OTHER: Final = "other"
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
STORE_CONNECTIONS = "gateway_store_connections"
SINK_CONNECTIONS = "gateway_sink_connections"
CONNECTIONS = {
    STORE_CONNECTIONS: "Connections to the database of keys, users and budgets.",
    SINK_CONNECTIONS: "Connections to the database of the rows.",
}

CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
SINK_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600)
ROW_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Registry(CollectorRegistry):
    """Without the ``_created`` series that the client adds to every counter and histogram."""

    def collect(self) -> Iterator[Metric]:
        """Everything registered, as it stands."""
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class Metrics:
    """The metrics of one application. Hears of flushes and of durable rows as the writer's observer."""

    def __init__(self) -> None:
        self.registry = Registry()
        self._writer: LogWriter | None = None
        self._count_pumps: Callable[[], int] | None = None
        self._count_connections: dict[str, Callable[[], Mapping[str, int]]] = {}
        self.registry.register(self)
        self._count_calls()
        self._count_writing()

    def _count_calls(self) -> None:
        self._requests = Tally(
            "gateway_requests",
            "Calls that ended and requests that were refused, by the HTTP status sent.",
            ("endpoint", "provider", "status_code"),
        )
        self._request_seconds = Distribution("gateway_request_seconds", "Whole calls.", CALL_BUCKETS)
        self._overhead_seconds = Distribution(
            "gateway_overhead_seconds",
            "The part of a call not spent waiting for the provider.",
            OVERHEAD_BUCKETS,
        )
        self._ttft_seconds = Distribution("gateway_ttft_seconds", "First byte of a stream.", CALL_BUCKETS)
        self._tokens = Tally(
            "gateway_tokens",
            "Tokens by type; cached is contained in prompt, reasoning in completion.",
            ("provider", "model", "type"),
        )
        self._absorbed = Tally(
            "gateway_absorbed_attempts",
            "Attempts at a provider that failed, and that a further one hid from the client.",
            ("provider", "error_code"),
        )
        self._cost = Tally("gateway_cost_usd", "Cost of calls.", ("provider", "model"))
        self._durable_seconds = Distribution(
            "gateway_log_durable_seconds", "From accepted to committed, per row.", SINK_BUCKETS
        )
        for each in (
            *(self._requests, self._tokens, self._absorbed, self._cost),
            *(self._request_seconds, self._overhead_seconds, self._ttft_seconds, self._durable_seconds),
        ):
            self.registry.register(each)

    def _count_writing(self) -> None:
        registry = self.registry
        self._flush_seconds = Histogram(
            "gateway_log_flush_seconds",
            "Attempts to write a batch.",
            ("sink", "outcome"),
            buckets=SINK_BUCKETS,
            registry=registry,
        )
        self._batch_rows = Histogram(
            "gateway_log_batch_rows",
            "Rows per attempt.",
            ("sink",),
            buckets=ROW_BUCKETS,
            registry=registry,
        )

    # --- calls

    def call_finished(self, record: UsageRecord, overhead_s: float, is_known_model: bool) -> None:
        """Count one call by its row. ``is_known_model``: the model is configured or priced, so its name
        may be a label. ``overhead_s`` is in seconds."""
        provider = record.provider or ""
        model = (record.model or "") if is_known_model else OTHER
        self._requests.add((record.endpoint, provider, str(record.status_code or "")))
        self._overhead_seconds.observe(max(0.0, overhead_s))
        if record.latency_ms is not None:
            self._request_seconds.observe(record.latency_ms / 1000)
        if record.ttft_ms is not None:
            self._ttft_seconds.observe(record.ttft_ms / 1000)
        self._count_use(record, provider, model)

    def _count_use(self, record: UsageRecord, provider: str, model: str) -> None:
        tokens = {
            "prompt": record.prompt_tokens,
            "completion": record.completion_tokens,
            "cached": record.cached_tokens,
            "reasoning": record.reasoning_tokens,
        }
        for kind, count in tokens.items():
            if count is not None and count > 0:
                self._tokens.add((provider, model, kind), count)
        if record.cost is not None and record.cost > 0:
            self._cost.add((provider, model), float(record.cost))

    def attempt_absorbed(self, record: UsageRecord, is_known_model: bool) -> None:
        """Count an attempt that failed and was hidden: it is no request, and what it used is used."""
        provider = record.provider or ""
        self._absorbed.add((provider, record.error_code or ""))
        self._count_use(record, provider, (record.model or "") if is_known_model else OTHER)

    def request_refused(self, endpoint: str, status_code: int) -> None:
        """Count one request that ended without a row. ``endpoint`` is a route's template or ``other``."""
        self._requests.add((endpoint, "", str(status_code)))

    # --- the writer: see ``WriterObserver``

    def flushed(self, sink: str, outcome: str, rows: int, seconds: float) -> None:
        """An attempt ended. One without rows was a ping and counts for its time alone."""
        self._flush_seconds.labels(sink, outcome).observe(seconds)
        if rows:
            self._batch_rows.labels(sink).observe(rows)

    def durable(self, seconds: Sequence[float]) -> None:
        """Rows were committed, each so many seconds after it was accepted."""
        for each in seconds:
            self._durable_seconds.observe(each)

    # --- scrapes

    def watch(self, writer: LogWriter) -> None:
        """Show the ledger of ``writer`` from now on."""
        self._writer = writer

    def watch_pumps(self, count: Callable[[], int]) -> None:
        """Show what ``count`` answers as the number of streams that are read on without a client."""
        self._count_pumps = count

    def watch_store(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Show what ``count`` answers as the connections to the store, by state."""
        self._count_connections[STORE_CONNECTIONS] = count

    def watch_sink(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Show what ``count`` answers as the connections to the sink, by state."""
        self._count_connections[SINK_CONNECTIONS] = count

    def render(self) -> tuple[bytes, str]:
        """The metrics as text, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def describe(self) -> Iterable[Metric]:
        """Names nothing: what there is depends on what is watched."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The gauges that are read, not counted."""
        if self._count_pumps is not None:
            yield GaugeMetricFamily(
                "gateway_stream_pumps", "Streams read on after their client left.", self._count_pumps()
            )
        for name, count in self._count_connections.items():
            yield _gauges(name, CONNECTIONS[name], "state", count())
        if self._writer is not None:
            yield from _ledger_metrics(self._writer.stats())


def _ledger_metrics(stats: WriterStats) -> Iterator[Metric]:
    rows = {**asdict(stats.counts), "unaccounted": stats.counts.unaccounted}
    yield _gauges("gateway_log_rows", "The ledger as it stands.", "state", rows)
    shed = CounterMetricFamily("gateway_log_shed", "Calls that never got a place.", labels=("reason",))
    for reason, count in stats.shed.items():
        shed.add_metric((reason,), count)
    yield shed
    yield GaugeMetricFamily("gateway_log_queue_rows", "Rows and places held.", stats.queue_rows)
    yield GaugeMetricFamily("gateway_log_queue_bytes", "Bytes set aside for them.", stats.queue_bytes)
    yield GaugeMetricFamily(
        "gateway_log_oldest_row_seconds", "Age of the oldest unsettled row.", stats.oldest_row_s
    )
    _, _, sink = stats.strategy.partition(":")
    breaker = {sink: BREAKER_STATES[stats.breaker]} if sink else {}
    yield _gauges("gateway_log_breaker_state", "0 closed, 1 half open, 2 open.", "sink", breaker)
    degraded = dict.fromkeys(stats.degraded, 1)
    yield _gauges("gateway_log_degraded", "1 while something is wrong behind.", "reason", degraded)


def _gauges(name: str, text: str, label: str, values: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
