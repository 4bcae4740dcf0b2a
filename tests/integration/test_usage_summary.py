"""``GET /v1/usage/summary``."""

from __future__ import annotations

import asyncio
import csv
import io
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from aiohttp import web
from letting_in import let_in

from backends.errors import SinkRetryable
from backends.memory import MemorySink
from backends.record import Batch
from backends.sink import Capabilities
from backends.testing import MOMENT, make_record
from gateway.access import Principal
from gateway.app import add_routes
from gateway.handlers import usage
from gateway.keys import METRICS, PRINCIPAL, SINK
from gateway.metrics import Metrics
from gateway.middlewares import add_middlewares

AUTHORIZED = {"Authorization": "Bearer tg-test"}
PATH = "/v1/usage/summary"


class MuteSink(MemorySink):
    capabilities = Capabilities(reads_usage=False)


class FailingSink(MemorySink):
    async def summarise_usage(self, query):
        raise SinkRetryable("08006", "secret dsn")


class SilentSink(MemorySink):
    async def summarise_usage(self, query):
        await asyncio.Event().wait()


@asynccontextmanager
async def opened(sink_class=MemorySink, rows=()):
    async with sink_class.open(sink_class.Options()) as sink:
        await sink.write(Batch.of(tuple(rows)))
        yield sink


@pytest.fixture
def serve(aiohttp_client):
    """Makes a client of a gateway over ``sink``."""

    async def go(sink):
        app = web.Application()
        let_in(app)
        app[METRICS] = Metrics()
        app[SINK] = sink
        add_middlewares(app)
        add_routes(app)
        return await aiohttp_client(app, headers=AUTHORIZED)

    return go


@pytest.fixture
def rows():
    """Ann asks twice, with a retry between; Bob fails; nobody knows who asked last, a month later."""
    cost = Decimal("0.100000001")
    return [
        make_record(user_id="ann", latency_ms=10.0, total_tokens=1, cost=cost),
        make_record(user_id="ann", latency_ms=99.0, total_tokens=1, cost=cost, status="absorbed"),
        make_record(user_id="ann", latency_ms=30.0, total_tokens=1, cost=None, model="other"),
        make_record(user_id="bob", latency_ms=20.5, total_tokens=None, cost=cost, status="error"),
        make_record(timestamp=MOMENT + timedelta(days=31), latency_ms=None, cost=Decimal("1.000000000")),
    ]


async def summary(client, query=""):
    response = await client.get(PATH + query)
    assert response.status == 200, await response.text()
    return await response.json()


async def refusal(response):
    return response.status, (await response.json())["error"]


async def test_everything_together_unless_groups_are_asked_for(serve, rows):
    async with opened(rows=rows) as sink:
        client = await serve(sink)

        assert await summary(client) == {
            "data": [
                {
                    "calls": 4,
                    "errors": 1,
                    "prompt_tokens": 60,
                    "completion_tokens": 170,
                    "total_tokens": 49,
                    "cached_tokens": 0,
                    "reasoning_tokens": 0,
                    "cost": "1.300000003",
                    "latency_p50_ms": 20.5,
                    "latency_p95_ms": 30.0,
                    "latency_p99_ms": 30.0,
                }
            ],
            "group_by": [],
        }


async def test_no_rows_are_one_group_of_nothing(serve):
    async with opened() as sink:
        client = await serve(sink)

        (total,) = (await summary(client))["data"]
        assert (total["calls"], total["cost"], total["latency_p50_ms"]) == (0, "0.000000000", None)
        assert (await summary(client, "?group_by=user_id"))["data"] == []


@pytest.mark.parametrize("query", ["?group_by=user_id,month", "?group_by=user_id&group_by=month"])
async def test_groups_are_named_with_commas_or_one_by_one(serve, rows, query):
    async with opened(rows=rows) as sink:
        client = await serve(sink)

        body = await summary(client, query)

    assert body["group_by"] == ["user_id", "month"]
    assert [(each["user_id"], each["month"], each["calls"], each["cost"]) for each in body["data"]] == [
        (None, "2026-02-01T00:00:00Z", 1, "1.000000000"),
        ("ann", "2026-01-01T00:00:00Z", 2, "0.200000002"),
        ("bob", "2026-01-01T00:00:00Z", 1, "0.100000001"),
    ]
    assert list(body["data"][0])[:3] == ["user_id", "month", "calls"]


async def test_a_time_of_a_group_can_be_asked_for_again(serve, rows):
    async with opened(rows=rows) as sink:
        client = await serve(sink)
        hours = (await summary(client, "?group_by=hour"))["data"]

        assert [each["hour"] for each in hours] == ["2026-01-02T03:00:00Z", "2026-02-02T03:00:00Z"]
        (rest,) = (await summary(client, f"?start={hours[1]['hour']}"))["data"]
        assert rest["calls"] == 1


async def test_filters_and_times_narrow_a_summary(serve, rows):
    async with opened(rows=rows) as sink:
        client = await serve(sink)

        (total,) = (await summary(client, "?user_id=ann&model=other&end=2026-02-01"))["data"]

    assert (total["calls"], total["latency_p50_ms"]) == (1, 30.0)


async def test_as_csv_it_has_a_head_and_a_line_for_each_group(serve, rows):
    async with opened(rows=rows) as sink:
        client = await serve(sink)

        response = await client.get(PATH + "?group_by=user_id,day&format=csv")
        text = (await response.read()).decode()

    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    head, *lines = csv.reader(io.StringIO(text, newline=""))
    assert head[:4] == ["user_id", "day", "calls", "errors"]
    assert [line[0] for line in lines] == ["", "ann", "bob"]
    assert lines[0][head.index("cost")] == "1.000000000"
    assert lines[0][head.index("latency_p50_ms")] == ""


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("group_by=cost", "invalid_parameter", "group_by"),
        ("group_by=", "invalid_parameter", "group_by"),
        ("group_by=user_id,,day", "invalid_parameter", "group_by"),
        ("group_by=day,day", "invalid_parameter", "group_by"),
        ("group_by=day&group_by=day", "invalid_parameter", "group_by"),
        ("start=yesterday", "invalid_parameter", "start"),
        ("start=2026-03-02&end=2026-03-01", "invalid_parameter", "end"),
        ("status=fine", "invalid_parameter", "status"),
        ("model=a&model=b", "invalid_parameter", "model"),
        ("limit=3", "unknown_parameter", "limit"),
        ("cursor=x", "unknown_parameter", "cursor"),
        ("format=jsonl", "invalid_format", "format"),
    ],
)
async def test_a_bad_parameter_is_named(serve, query, code, param):
    async with opened() as sink:
        client = await serve(sink)

        status, error = await refusal(await client.get(f"{PATH}?{query}"))

    assert (status, error["code"], error["param"]) == (400, code, param)


async def test_what_cannot_be_read_back_is_not_summarised(serve):
    async with opened(MuteSink) as mute:
        for sink in (mute, None):
            client = await serve(sink)

            status, error = await refusal(await client.get(PATH))

            assert (status, error["code"]) == (501, "usage_not_stored")


@pytest.mark.parametrize("sink_class", [FailingSink, SilentSink])
async def test_a_database_that_fails_or_is_silent_makes_summaries_unavailable(serve, monkeypatch, sink_class):
    monkeypatch.setattr(usage, "SUMMARY_TIMEOUT_S", 0.01 if sink_class is SilentSink else 20.0)
    async with opened(sink_class) as sink:
        client = await serve(sink)

        status, error = await refusal(await client.get(PATH))

    assert (status, error["code"]) == (503, "usage_unavailable")
    assert "secret" not in error["message"]


async def test_summaries_are_for_the_master_key_alone(serve, monkeypatch):
    async with opened() as sink:
        client = await serve(sink)

        assert (await client.get(PATH, headers={"Authorization": "Bearer nope"})).status == 401

    request = {PRINCIPAL: Principal(is_master=False)}
    with pytest.raises(Exception, match="master key") as caught:
        await usage.summarise_usage(request)
    assert caught.value.code == "master_key_required"
