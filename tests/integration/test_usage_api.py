from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import ClassVar

import pytest
from aiohttp import web
from letting_in import let_in

from backends import Cursor, UsageRecord
from backends.errors import SinkRetryable
from backends.memory import MemorySink
from backends.record import Batch
from backends.sink import Capabilities
from gateway.access import Principal
from gateway.handlers import usage
from gateway.keys import METRICS, PRINCIPAL, SINK
from gateway.metrics import Metrics
from gateway.middlewares import add_middlewares

AUTHORIZED = {"Authorization": "Bearer tg-test"}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(minute, **values):
    """A call that began so many minutes after noon."""
    return UsageRecord(
        **{
            "id": uuid.UUID(int=minute),
            "request_id": f"r{minute}",
            "timestamp": NOON + timedelta(minutes=minute),
            "endpoint": "/v1/chat/completions",
            "status": "success",
            "end_reason": "complete",
            "provider": "local",
            "model": "fake",
            "cost": Decimal("0.000001500"),
            **values,
        }
    )


class MuteSink(MemorySink):
    """Keeps rows and shows none."""

    capabilities: ClassVar[Capabilities] = Capabilities(reads_usage=False)


class WriteOnlySink:
    """Has no read side at all."""

    capabilities: ClassVar[Capabilities] = Capabilities()


class FailingSink(MemorySink):
    """Answers every question with ``error``."""

    error: ClassVar[Exception]

    async def read_usage(self, query):
        raise self.error


class SilentSink(MemorySink):
    """Never answers."""

    async def read_usage(self, query):
        await asyncio.Event().wait()


@asynccontextmanager
async def opened(sink_class=MemorySink, rows=()):
    async with sink_class.open(sink_class.Options()) as sink:
        await sink.write(Batch.of(tuple(rows)))
        yield sink


@pytest.fixture
def serve(aiohttp_client):
    """Makes a client of a gateway that has just this endpoint over ``sink``."""

    async def go(sink, handler=usage.list_usage):
        app = web.Application()
        let_in(app)
        app[METRICS] = Metrics()
        app[SINK] = sink
        add_middlewares(app)
        app.add_routes([web.get("/v1/usage", handler)])
        return await aiohttp_client(app, headers=AUTHORIZED)

    return go


async def minutes(response):
    assert response.status == 200, await response.text()
    return [uuid.UUID(each["id"]).int for each in (await response.json())["data"]]


async def refusal(response):
    return response.status, (await response.json())["error"]


async def test_rows_come_newest_first_with_all_columns(serve):
    async with opened(rows=[row(1, tags='{"team":"a"}'), row(2)]) as sink:
        client = await serve(sink)

        body = await (await client.get("/v1/usage")).json()

    assert [each["request_id"] for each in body["data"]] == ["r2", "r1"]
    assert (body["cursor"], body["has_more"]) == (None, False)
    first = body["data"][1]
    assert first["timestamp"] == "2026-03-01T12:01:00.000000Z"
    assert first["cost"] == "0.000001500"
    assert first["prompt_tokens"] is None
    assert first["tags"] == '{"team":"a"}'


async def test_pages_follow_each_other_without_gap_or_overlap_while_rows_are_added(serve):
    async with opened(rows=[row(minute) for minute in range(1, 8)]) as sink:
        client = await serve(sink)
        seen, parameters = [], {"limit": "3"}

        while True:
            response = await client.get("/v1/usage", params=parameters)
            seen += await minutes(response)
            body = await response.json()
            assert body["has_more"] == (body["cursor"] is not None)
            if not body["has_more"]:
                break
            await sink.write(Batch.of((row(100 + len(seen)),)))
            parameters["cursor"] = body["cursor"]

    assert seen == [7, 6, 5, 4, 3, 2, 1]


async def test_start_is_included_and_end_is_not(serve):
    async with opened(rows=[row(minute) for minute in range(1, 6)]) as sink:
        client = await serve(sink)

        response = await client.get("/v1/usage?start=2026-03-01T12:02:00Z&end=2026-03-01T12:04:00Z")

        assert await minutes(response) == [3, 2]


@pytest.mark.parametrize(
    "start",
    ["2026-03-01T12:02:00Z", "2026-03-01T12:02:00", "2026-03-01T14:02:00%2B02:00", "2026-03-01%2012:02"],
)
async def test_a_time_is_utc_unless_it_says_otherwise(serve, start):
    async with opened(rows=[row(1), row(2), row(3)]) as sink:
        client = await serve(sink)

        assert await minutes(await client.get(f"/v1/usage?start={start}")) == [3, 2]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("user_id", "ann"),
        ("api_key_id", "k1"),
        ("provider", "openai"),
        ("model", "müller/модель"),
        ("endpoint", "/v1/embeddings"),
        ("status", "cancelled"),
        ("request_id", "mine"),
    ],
)
async def test_each_filter_finds_just_its_rows(serve, parameter, value):
    async with opened(rows=[row(1), row(2, **{parameter: value}), row(3)]) as sink:
        client = await serve(sink)

        assert await minutes(await client.get("/v1/usage", params={parameter: value})) == [2]


async def test_filters_narrow_each_other(serve):
    async with opened(
        rows=[row(1, user_id="ann"), row(2, user_id="ann", model="x"), row(3, model="x")]
    ) as sink:
        client = await serve(sink)

        assert await minutes(await client.get("/v1/usage?user_id=ann&model=x")) == [2]


async def test_a_page_has_100_rows_unless_asked_otherwise(serve):
    async with opened(rows=[row(minute) for minute in range(1, 1202)]) as sink:
        client = await serve(sink)

        assert len(await minutes(await client.get("/v1/usage"))) == 100
        assert len(await minutes(await client.get("/v1/usage?limit=1000"))) == 1000


def with_zone(cursor_time):
    return Cursor(datetime.fromisoformat(cursor_time), uuid.UUID(int=1)).encode()


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("start", "yesterday"),
        ("start", ""),
        ("start", "2026-03-01T12:00:00 02:00"),
        ("start", "0001-01-01T00:00:00+14:00"),
        ("end", "2026-13-01"),
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "-1"),
        ("limit", "+5"),
        ("limit", "1_0"),
        ("limit", "٣"),
        ("limit", "9" * 5000),
        ("limit", ""),
        ("status", "fine"),
        ("user_id", ""),
        ("user_id", "x" * 257),
        ("model", "a\0b"),
        ("cursor", ""),
        ("cursor", "!!!"),
        ("cursor", "é"),
        ("cursor", "AAAA"),
        ("cursor", with_zone("0001-01-01T00:00:00+14:00")),
    ],
)
async def test_a_bad_parameter_is_named(serve, parameter, value):
    async with opened() as sink:
        client = await serve(sink)

        status, error = await refusal(await client.get("/v1/usage", params={parameter: value}))

    assert (status, error["code"], error["param"]) == (400, "invalid_parameter", parameter)
    assert error["type"] == "invalid_request_error"


async def test_an_end_before_the_start_is_refused(serve):
    async with opened() as sink:
        client = await serve(sink)

        status, error = await refusal(await client.get("/v1/usage?start=2026-03-02&end=2026-03-01"))

    assert (status, error["code"], error["param"]) == (400, "invalid_parameter", "end")


async def test_an_unknown_parameter_is_refused_and_never_ignored(serve):
    async with opened() as sink:
        client = await serve(sink)

        status, error = await refusal(await client.get("/v1/usage?user=ann"))

    assert (status, error["code"], error["param"]) == (400, "unknown_parameter", "user")
    assert "user_id" in error["message"]


async def test_a_parameter_given_twice_is_refused(serve):
    async with opened() as sink:
        client = await serve(sink)

        status, error = await refusal(await client.get("/v1/usage?model=a&model=b"))

    assert (status, error["code"], error["param"]) == (400, "invalid_parameter", "model")


@pytest.mark.parametrize("format", ["xml", "CSV", "table", ""])
async def test_a_format_that_is_not_offered_is_refused(serve, format):
    async with opened() as sink:
        client = await serve(sink)

        status, error = await refusal(await client.get("/v1/usage", params={"format": format}))

        assert (status, error["code"], error["param"]) == (400, "invalid_format", "format")
        assert (await client.get("/v1/usage?format=json")).status == 200


async def test_noop_stores_no_usage(serve):
    client = await serve(None)

    status, error = await refusal(await client.get("/v1/usage"))

    assert (status, error["code"]) == (501, "usage_not_stored")


async def test_a_sink_without_a_read_side_stores_none_that_can_be_shown(serve):
    async with opened(MuteSink) as mute:
        for sink in (mute, WriteOnlySink()):
            client = await serve(sink)

            status, error = await refusal(await client.get("/v1/usage"))

            assert (status, error["code"]) == (501, "usage_not_stored")


@pytest.mark.parametrize("error", [SinkRetryable("08006", "secret dsn"), TimeoutError()])
async def test_a_database_that_fails_makes_usage_unavailable(serve, error, caplog):
    class Sink(FailingSink):
        pass

    Sink.error = error
    async with opened(Sink) as sink:
        client = await serve(sink)

        response = await client.get("/v1/usage")

        assert (await refusal(response))[1]["code"] == "usage_unavailable"
        assert response.status == 503
        assert "secret dsn" not in await response.text()
    assert [record.getMessage() for record in caplog.records] == ["usage_unavailable"]


async def test_a_database_that_is_silent_makes_usage_unavailable(serve, monkeypatch):
    monkeypatch.setattr(usage, "READ_TIMEOUT_S", 0.01)
    async with opened(SilentSink) as sink:
        client = await serve(sink)

        status, error = await refusal(await client.get("/v1/usage"))

    assert (status, error["code"]) == (503, "usage_unavailable")


async def test_usage_needs_a_key(serve):
    async with opened() as sink:
        client = await serve(sink)

        response = await client.get("/v1/usage", headers={"Authorization": "Bearer nope"})

    assert response.status == 401


async def test_usage_is_for_the_master_key_alone(serve):
    async def as_somebody_else(request):
        request[PRINCIPAL] = Principal(is_master=False)
        return await usage.list_usage(request)

    async with opened() as sink:
        client = await serve(sink, as_somebody_else)

        status, error = await refusal(await client.get("/v1/usage"))

    assert (status, error["code"]) == (403, "master_key_required")
