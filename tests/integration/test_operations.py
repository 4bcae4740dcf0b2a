from __future__ import annotations

import uuid

import pytest
from aiohttp import web
from letting_in import let_in

from backends import LedgerCounts, NoopLogWriter, WriterStats
from gateway.handlers import operations
from gateway.keys import LIFECYCLE, METRICS, WRITER, Lifecycle
from gateway.metrics import Metrics
from gateway.middlewares import add_middlewares

AUTHORIZED = {"Authorization": "Bearer tg-test"}


class Writer:
    """A writer whose ledger stands as the test says."""

    def __init__(self) -> None:
        self.now = WriterStats(
            state="running", strategy="batch:sqlite", boot_id=uuid.uuid4(), counts=LedgerCounts()
        )

    def stats(self) -> WriterStats:
        return self.now

    def change(self, **values) -> None:
        values = {name: values.get(name, getattr(self.now, name)) for name in self.now.__slots__}
        self.now = WriterStats(**values)


@pytest.fixture
def writer():
    return Writer()


@pytest.fixture
async def client(aiohttp_client, writer):
    app = web.Application()
    let_in(app)
    app[METRICS] = Metrics()
    app[LIFECYCLE] = Lifecycle("running")
    app[WRITER] = writer
    app[METRICS].watch(writer)
    add_middlewares(app)
    app.add_routes(
        [
            web.get("/health", operations.health),
            web.get("/health/liveness", operations.health),
            web.get("/health/readiness", operations.readiness),
            web.get("/metrics", operations.metrics),
            web.get("/v1/log-writer", operations.log_writer),
        ]
    )
    return await aiohttp_client(app)


@pytest.mark.parametrize("path", ["/health", "/health/liveness"])
async def test_the_process_answers_whatever_is_wrong_behind_it(client, writer, path):
    writer.change(state="failed", would_refuse="failed", degraded={"sink_down": "08006"})

    response = await client.get(path)

    assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_a_running_gateway_is_ready(client):
    response = await client.get("/health/readiness")

    assert (response.status, await response.json()) == (200, {"status": "ready", "degraded": []})


async def test_trouble_behind_is_named_and_costs_no_traffic(client, writer):
    writer.change(degraded={"sink_down": "08006", "dead_letters": "rows"}, breaker="open")

    response = await client.get("/health/readiness")

    assert response.status == 200
    assert await response.json() == {"status": "ready", "degraded": ["dead_letters", "sink_down"]}


@pytest.mark.parametrize("phase", ["starting", "draining", "failed"])
async def test_a_gateway_that_is_not_running_is_not_ready(client, phase):
    client.app[LIFECYCLE].phase = phase

    response = await client.get("/health/readiness")

    assert response.status == 503
    assert (await response.json())["status"] == phase


async def test_a_gateway_that_would_refuse_the_next_call_is_not_ready(client, writer):
    writer.change(would_refuse="queue_full")

    response = await client.get("/health/readiness")

    assert response.status == 503
    assert await response.json() == {"status": "refusing", "reason": "queue_full", "degraded": []}


async def test_metrics_are_text_for_prometheus(client):
    response = await client.get("/metrics")

    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'gateway_log_rows{state="accepted"} 0.0' in await response.text()


async def test_scrapes_and_probes_are_no_requests_of_clients(client, writer):
    writer.change(would_refuse="queue_full")
    await client.get("/health/readiness")

    assert "gateway_requests_total{" not in await (await client.get("/metrics")).text()


async def test_the_log_writer_shows_the_ledger_in_sum_and_by_worker(client, writer):
    writer.change(
        counts=LedgerCounts(accepted=3, committed=2, queued=1), shed={"queue_full": 4}, oldest_row_s=0.25
    )

    response = await client.get("/v1/log-writer", headers=AUTHORIZED)

    ledger = {
        "state": "running",
        "strategy": "batch:sqlite",
        "boot_id": str(writer.now.boot_id),
        "accepted": 3,
        "recovered": 0,
        "committed": 2,
        "duplicates": 0,
        "dead_lettered": 0,
        "spooled": 0,
        "abandoned": 0,
        "queued": 1,
        "in_flight": 0,
        "shed": {"queue_full": 4},
        "unaccounted": 0,
        "oldest_row_s": 0.25,
    }
    assert await response.json() == {**ledger, "workers": [ledger]}


async def test_noop_has_a_ledger_of_zeros(client, writer):
    writer.now = NoopLogWriter().stats()

    ledger = await (await client.get("/v1/log-writer", headers=AUTHORIZED)).json()

    assert (ledger["strategy"], ledger["accepted"], ledger["unaccounted"]) == ("noop", 0, 0)


async def test_the_log_writer_needs_a_key(client):
    response = await client.get("/v1/log-writer")

    assert response.status == 401
