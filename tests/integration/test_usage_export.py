"""``GET /v1/usage`` as CSV and JSON lines: every row, in the memory of a page, at the client's pace."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientPayloadError, ClientSession, web
from letting_in import let_in
from msgspec import structs

from backends import Cursor, UsagePage, UsageQuery, to_json
from backends.errors import SinkRetryable
from backends.memory import MemorySink
from backends.record import COLUMNS, Batch
from backends.testing import make_bare_record, make_full_record, make_record, make_records, naive_rows
from gateway import usage_text
from gateway.handlers import usage
from gateway.keys import METRICS, SINK
from gateway.metrics import Metrics
from gateway.middlewares import add_middlewares

AUTHORIZED = {"Authorization": "Bearer tg-test"}
LONG_S = 20.0
AWKWARD = ('say "hi"', "a,b", "two\r\nlines", "=1+1", " padded ", "漢字", "")


class FailsOnTheSecondPage(MemorySink):
    async def read_usage(self, query):
        if query.after:
            raise SinkRetryable("08006", "secret dsn")
        return await super().read_usage(query)


class Endless(MemorySink):
    """There is always one more page."""

    async def read_usage(self, query):
        rows = make_records(query.limit, error_message="x" * 1000)
        return UsagePage(rows, Cursor(rows[-1].timestamp, rows[-1].id))


class Counting(MemorySink):
    """Notes the queries that it answers."""

    async def read_usage(self, query):
        vars(self).setdefault("queries", []).append(query)
        return await super().read_usage(query)


@asynccontextmanager
async def opened(sink_class=MemorySink, rows=()):
    async with sink_class.open(sink_class.Options()) as sink:
        await sink.write(Batch.of(tuple(rows)))
        yield sink


def application(sink, handler=usage.list_usage):
    """A gateway that has just this endpoint over ``sink``."""
    app = web.Application()
    let_in(app)
    app[METRICS] = Metrics()
    app[SINK] = sink
    add_middlewares(app)
    app.add_routes([web.get("/v1/usage", handler)])
    return app


@asynccontextmanager
async def listening(app):
    """The address of ``app``, served as the gateway serves it: the handler of a client that leaves is not
    cancelled, as aiohttp's test server would."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def serve(aiohttp_client):
    """Makes a client of such a gateway."""

    async def go(sink):
        return await aiohttp_client(application(sink), headers=AUTHORIZED)

    return go


async def csv_rows(response):
    assert response.status == 200, await response.text()
    return list(csv.reader(io.StringIO((await response.read()).decode(), newline="")))


async def ids(response, format):
    text = (await response.read()).decode()
    if format == "jsonl":
        return [json.loads(line)["id"] for line in text.splitlines()]
    return [line[0] for line in csv.reader(io.StringIO(text, newline=""))][1:]


async def test_csv_has_a_head_with_every_column_and_a_line_for_every_row(serve):
    full, bare = make_full_record(), make_bare_record()
    async with opened(rows=[full, bare]) as sink:
        client = await serve(sink)

        response = await client.get("/v1/usage?format=csv")
        head, *lines = await csv_rows(response)

    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="usage.csv"'
    assert "x-request-id" in response.headers
    assert head == list(COLUMNS)
    by_id = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    first, second = by_id[str(full.id)], by_id[str(bare.id)]
    assert (first["cost"], first["stream"]) == ("123456789.123456789", "true")
    assert first["timestamp"] == "2026-01-02T03:04:05.678901Z"
    assert (second["cost"], second["user_id"], second["stream"]) == ("", "", "false")


async def test_csv_without_rows_is_its_head(serve):
    async with opened() as sink:
        client = await serve(sink)

        assert await csv_rows(await client.get("/v1/usage?format=csv")) == [list(COLUMNS)]
        assert await (await client.get("/v1/usage?format=jsonl")).text() == ""


async def test_no_text_breaks_a_line_of_csv(serve):
    rows = [make_record(user_id=text) for text in AWKWARD]
    async with opened(rows=rows) as sink:
        client = await serve(sink)

        response = await client.get("/v1/usage?format=csv")
        head, *lines = await csv_rows(response)

    assert {line[head.index("user_id")] for line in lines} == set(AWKWARD)
    assert (await response.read()).count(b"\r\n") == len(AWKWARD) + 2


async def test_jsonl_has_each_row_as_the_page_has_it(serve):
    rows = [make_full_record(user_id="two\nlines\u2028漢字"), make_bare_record()]
    async with opened(rows=rows) as sink:
        client = await serve(sink)

        response = await client.get("/v1/usage?format=jsonl")
        lines = (await response.text()).split("\n")
        page = await (await client.get("/v1/usage")).json()

    assert response.headers["Content-Type"] == "application/jsonl; charset=utf-8"
    assert (
        [json.loads(line) for line in lines[:-1]] == page["data"] == [to_json(row) for row in reversed(rows)]
    )


@pytest.mark.parametrize("format", ["csv", "jsonl"])
async def test_every_row_of_every_page_comes_once(serve, monkeypatch, format):
    monkeypatch.setattr(usage_text, "PAGE_ROWS", 7)
    rows = make_records(100)
    wanted = [str(row.id) for row in naive_rows(rows, UsageQuery())]
    async with opened(Counting, rows) as sink:
        client = await serve(sink)

        assert await ids(await client.get(f"/v1/usage?format={format}"), format) == wanted
        assert {query.limit for query in sink.queries} == {7}


@pytest.mark.parametrize("limit", [1, 6, 7, 8, 14, 99, 100, 5000])
async def test_a_limit_is_of_all_rows_and_not_of_a_page(serve, monkeypatch, limit):
    monkeypatch.setattr(usage_text, "PAGE_ROWS", 7)
    async with opened(Counting, make_records(100)) as sink:
        client = await serve(sink)

        found = await ids(await client.get(f"/v1/usage?format=csv&limit={limit}"), "csv")

    assert len(found) == min(limit, 100)
    assert len(sink.queries) == -(-min(limit, 100) // 7)


async def test_an_export_begins_behind_a_cursor_and_keeps_its_filters(serve, monkeypatch):
    monkeypatch.setattr(usage_text, "PAGE_ROWS", 2)
    rows = [structs.replace(row, user_id="ann" if n % 2 else "bob") for n, row in enumerate(make_records(20))]
    wanted = [str(row.id) for row in naive_rows(rows, UsageQuery(filters=(("user_id", "ann"),)))]
    async with opened(rows=rows) as sink:
        client = await serve(sink)
        first = await (await client.get("/v1/usage?user_id=ann&limit=3")).json()

        rest = await client.get(
            "/v1/usage", params={"user_id": "ann", "format": "csv", "cursor": first["cursor"]}
        )

        assert await ids(rest, "csv") == wanted[3:]


async def test_a_database_that_is_down_at_once_is_an_error_and_no_empty_file(serve):
    class Down(MemorySink):
        async def read_usage(self, query):
            raise SinkRetryable("08006", "secret dsn")

    async with opened(Down) as sink:
        client = await serve(sink)

        response = await client.get("/v1/usage?format=csv")
        body = await response.json()

    assert (response.status, body["error"]["code"]) == (503, "usage_unavailable")


async def test_a_database_that_fails_later_cuts_the_answer_so_that_the_client_sees_it(serve, monkeypatch):
    monkeypatch.setattr(usage_text, "PAGE_ROWS", 2)
    async with opened(FailsOnTheSecondPage, make_records(5)) as sink:
        client = await serve(sink)

        response = await client.get("/v1/usage?format=jsonl")
        with pytest.raises(ClientPayloadError):
            await response.read()

    assert response.status == 200


async def test_for_a_client_that_has_gone_nothing_more_is_read():
    ended = asyncio.Event()

    async def handler(request):
        try:
            return await usage.list_usage(request)
        finally:
            ended.set()

    async with opened(Endless) as sink, listening(application(sink, handler)) as url:
        async with ClientSession(headers=AUTHORIZED) as session:
            response = await session.get(f"{url}/v1/usage?format=csv")
            await response.content.readexactly(1_000_000)
            response.close()

        async with asyncio.timeout(LONG_S):
            await ended.wait()


async def test_a_head_request_reads_one_page(serve, monkeypatch):
    monkeypatch.setattr(usage_text, "PAGE_ROWS", 2)
    async with opened(Counting, make_records(9)) as sink:
        client = await serve(sink)

        response = await client.head("/v1/usage?format=csv")

    assert (response.status, response.content_type, len(sink.queries)) == (200, "text/csv", 1)


@pytest.mark.parametrize("limit", ["0", "-1", "1e3", "9999999999", "9" * 5000])
async def test_a_bad_limit_of_an_export_is_named(serve, limit):
    async with opened() as sink:
        client = await serve(sink)

        response = await client.get("/v1/usage", params={"format": "csv", "limit": limit})

        assert (response.status, (await response.json())["error"]["param"]) == (400, "limit")
