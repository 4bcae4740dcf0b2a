"""Calls that go well: what the provider gets, what the client gets, and the one row."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
STRATEGIES = ["memory", "sqlite", "single:memory", "single:sqlite"]


@pytest.fixture(params=STRATEGIES)
async def everywhere(request, gateways):
    """The same gateway over every sink and strategy."""
    return await gateways(request.param)


def tokens(row):
    return row.prompt_tokens, row.completion_tokens, row.total_tokens


# --- the row


async def test_a_plain_answer_has_its_row(everywhere):
    before = datetime.now(UTC)

    response = await everywhere.chat(model="fake:m", metadata={"team": "a"})

    assert response.status == 200
    assert (await response.json())["usage"]["total_tokens"] == 7
    row = await everywhere.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert row.id.version == 7
    assert row.request_id == response.headers["x-request-id"]
    assert (row.route, row.provider, row.model, row.endpoint) == ("fake:m", "fake", "m", CHAT)
    assert (row.status, row.end_reason, row.status_code) == ("success", "complete", 200)
    assert (row.error_code, row.error_message) == (None, None)
    assert (row.stream, row.ttft_ms) == (False, None)
    assert (tokens(row), row.usage_source) == ((2, 5, 7), "provider")
    assert row.cost == Decimal("0.000003300")
    assert (row.api_key_id, row.user_id) == (None, None)
    assert json.loads(row.tags) == {"team": "a"}
    assert before - timedelta(milliseconds=1) <= row.timestamp <= datetime.now(UTC)
    assert row.latency_ms > 0
    assert (row.boot_id, row.seq) == (everywhere.boot_id, 1)


async def test_a_stream_has_its_row(everywhere):
    response = await everywhere.chat(model="fake:m", stream=True, max_tokens=11)

    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert (await response.read()).endswith(b"data: [DONE]\n\n")
    row = await everywhere.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert (row.status, row.end_reason, row.status_code, row.stream) == ("success", "complete", 200, True)
    assert (tokens(row), row.usage_source) == ((2, 11, 13), "provider")
    assert row.cost == Decimal("0.000006900")
    assert 0 < row.ttft_ms <= row.latency_ms


async def test_embeddings_have_their_row(everywhere):
    body = {"model": "fake:m", "input": ["say swordfish twice", "and again"]}

    response = await everywhere.post(body, EMBEDDINGS)

    assert response.status == 200
    assert len((await response.json())["data"]) == 2
    row = await everywhere.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert (row.endpoint, row.status, row.stream) == (EMBEDDINGS, "success", False)
    assert (tokens(row), row.usage_source) == ((5, None, 5), "provider")
    assert row.cost == Decimal("0.000000750")


async def test_cached_and_reasoning_tokens_are_kept_and_priced(gateway):
    for stream in (False, True):
        fake = {"cached_tokens": 1, "reasoning_tokens": 3}
        await gateway.chat(model="fake:m", stream=stream, fake=fake)

    for row in await gateway.rows():
        assert (row.cached_tokens, row.reasoning_tokens) == (1, 3)
        assert row.cost == Decimal("0.000003225")


@pytest.mark.parametrize(("prompt", "cost"), [(1, "0E-9"), (3, "2E-9"), (5, "2E-9"), (7, "4E-9")])
async def test_a_cost_is_rounded_once_and_half_even(gateways, prompt, cost):
    price = {"input_per_million": "0.0005", "output_per_million": "0"}
    gateway = await gateways(pricing={"stage:m": price})
    gateway.stage.plain(gateway.stage.completion("swordfish", prompt, 100))

    await gateway.chat()

    assert (await gateway.row()).cost == Decimal(cost)


async def test_a_model_without_a_price_has_no_cost(gateway):
    await gateway.chat(model="fake:dear")

    row = await gateway.row()
    assert (tokens(row), row.cost) == ((2, 5, 7), None)


@pytest.mark.parametrize("name", ["fake:m", "fake/m"])
async def test_both_spellings_of_a_model_reach_it(gateway, name):
    await gateway.chat(model=name)

    row = await gateway.row()
    assert (row.route, row.provider, row.model) == (name, "fake", "m")
    assert row.cost == Decimal("0.000003300")


async def test_many_calls_at_once_have_a_row_each(everywhere):
    bodies = [everywhere.body("fake:m", stream=n % 2 == 0, max_tokens=n) for n in range(60)]

    await asyncio.gather(*map(everywhere.post, bodies))

    rows = await everywhere.rows()
    assert sorted(row.completion_tokens for row in rows) == list(range(60))
    assert sorted(row.seq for row in rows) == list(range(1, 61))
    for row in rows:
        assert row.cost == Decimal(3 + 6 * row.completion_tokens).scaleb(-7)


async def test_sqlite_holds_the_row_after_the_gateway_is_gone(gateways, tmp_path):
    gateway = await gateways("sqlite")
    response = await gateway.chat(model="fake:m")
    await gateway.settled()

    (path,) = tmp_path.glob("*.db")
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT id, cost, total_tokens, status FROM usage_logs").fetchall()
    finally:
        connection.close()
    assert rows == [(response.headers["x-usage-id"], "0.000003300", 7, "success")]


async def test_the_row_can_be_seen_through_the_gateway(gateway):
    response = await gateway.chat(model="fake:m", metadata={"team": "a"})
    await gateway.settled()

    page = await (await gateway.client.get("/v1/usage", headers=gateway.headers())).json()
    ledger = await (await gateway.client.get("/v1/log-writer", headers=gateway.headers())).json()

    (row,) = page["data"]
    assert row["id"] == response.headers["x-usage-id"]
    assert (row["cost"], row["total_tokens"]) == ("0.000003300", 7)
    assert (ledger["accepted"], ledger["committed"], ledger["unaccounted"]) == (1, 1, 0)


async def test_the_metrics_count_the_call_once(gateway):
    await gateway.chat(model="fake:m")

    labels = {"endpoint": CHAT, "provider": "fake", "status_code": "200"}
    assert gateway.metric("gateway_requests_total", **labels) == 1
    model = {"provider": "fake", "model": "m"}
    assert gateway.metric("gateway_tokens_total", **model, type="completion") == 5


# --- the way to the provider


RAW = (
    b'\n{ "messages":[{"role":"user","content":"say swordfish \\u00e9 \xc3\xa9"}] ,\t"model" : "stage:m",'
    b' "seed": 12345678901234567890123, "temperature":1.0e-1, "unknown":{"a":[1,2 ,3],"a":null}%s} '
)


async def test_the_body_reaches_the_provider_byte_for_byte_but_for_the_model(gateway, stage):
    stage.plain(stage.completion("swordfish", 1, 1))

    await gateway.post(RAW % b"")

    assert stage.bodies == [(RAW % b"").replace(b'"stage:m"', b'"m"')]


async def test_a_stream_asks_for_its_usage_and_changes_nothing_else(gateway, stage):
    stage.stream(stage.usage(1, 1), stage.DONE)

    await gateway.post(RAW % b', "stream": true')

    sent = (RAW % b', "stream": true').replace(b'"stage:m"', b'"m"')
    assert stage.bodies == [sent.replace(b"true}", b'true,"stream_options": {"include_usage": true}}')]


async def test_a_client_that_asks_for_usage_itself_has_its_body_passed_on(gateway, stage):
    stage.stream(stage.usage(1, 1), stage.DONE)
    raw = RAW % b', "stream": true, "stream_options":{"include_usage" :true,"x":1}'

    await gateway.post(raw)

    assert stage.bodies == [raw.replace(b'"stage:m"', b'"m"')]


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
async def test_other_stream_options_are_kept_beside_ours(gateway, stage, options):
    stage.stream(stage.usage(1, 1), stage.DONE)
    given = None if options is None else {**options, "include_obfuscation": False}

    await gateway.chat(stream=True, stream_options=given)

    sent = json.loads(stage.bodies[0])["stream_options"]
    assert sent == {**(given or {}), "include_usage": True}


async def test_the_model_may_contain_what_divides_names(gateway, stage):
    stage.plain(stage.completion("swordfish", 1, 1))

    await gateway.chat(model="stage/org/model:free")

    assert json.loads(stage.bodies[0])["model"] == "org/model:free"
    assert (await gateway.row()).model == "org/model:free"


async def test_the_provider_gets_its_own_key_and_the_request_id_and_nothing_of_ours(gateway, stage):
    stage.plain(stage.completion("swordfish", 1, 1))

    await gateway.post(gateway.body(), **{"x-request-id": "mine-1", "x-api-key": "tg-test", "Cookie": "a=b"})

    (headers,) = stage.headers
    assert headers["Authorization"] == "Bearer sk-of-the-provider-0123"
    assert headers["x-request-id"] == "mine-1"
    assert "tg-test" not in str(headers) and "Cookie" not in headers


# --- the way back


async def test_the_answer_is_the_providers_byte_for_byte(gateway, stage):
    raw = b' {"choices" :[],"model":"m-2024", "usage":{"prompt_tokens":1 ,"completion_tokens":2}}\n'
    stage.plain(raw)

    response = await gateway.chat()

    assert await response.read() == raw
    assert response.headers["Content-Type"].startswith("application/json")


async def test_the_status_of_a_success_is_passed_on(gateway, stage):
    stage.plain(stage.completion("swordfish", 1, 1), status=201)

    response = await gateway.chat()

    assert (response.status, (await gateway.row()).status_code) == (201, 201)


async def test_the_usage_chunk_is_withheld_from_a_client_that_did_not_ask(gateway, stage):
    events = [stage.chunk("sword", usage=None), stage.chunk("fish", usage=None)]
    stage.stream(*events, stage.usage(3, 4), stage.DONE)

    response = await gateway.chat(stream=True)

    assert await response.read() == b"".join([*events, stage.DONE])
    assert tokens(await gateway.row()) == (3, 4, 7)


async def test_the_usage_chunk_is_passed_to_a_client_that_asked(gateway, stage):
    events = [b": comment\n\n", stage.chunk("swordfish"), stage.usage(3, 4), stage.DONE]
    stage.stream(*events)

    response = await gateway.chat(stream=True, stream_options={"include_usage": True})

    assert await response.read() == b"".join(events)


async def test_usage_beside_content_is_no_usage_chunk(gateway, stage):
    counts = {"prompt_tokens": 3, "completion_tokens": 4}
    events = [stage.chunk("swordfish", usage=counts), stage.DONE]
    stage.stream(*events)

    response = await gateway.chat(stream=True)

    assert await response.read() == b"".join(events)
    assert tokens(await gateway.row()) == (3, 4, None)


async def test_events_go_out_as_they_come(gateway, stage):
    stage.stream(stage.chunk("one"), stage.go, stage.chunk("two"), stage.usage(1, 1), stage.DONE)

    caller = await gateway.call(gateway.body(stream=True))
    await caller.head()
    await caller.until(b"one")
    stage.go.set()
    await caller.until(b"[DONE]")

    assert (await gateway.row()).status == "success"


async def test_the_row_is_there_before_the_last_event(gateways):
    gateway = await gateways("single:memory")

    caller = await gateway.call(gateway.body("fake:m", stream=True))
    await caller.head()
    await caller.until(b"[DONE]")

    assert gateway.counts.committed == 1


@pytest.mark.parametrize("sent", ["mine-1", None])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_request_id_is_on_the_answer_in_the_row_and_with_the_provider(gateway, sent, stream):
    headers = {"x-request-id": sent} if sent else {}

    response = await gateway.post(gateway.body("fake:m", stream=stream), **headers)

    request_id = response.headers["x-request-id"]
    assert request_id == sent if sent else len(request_id) == 32
    assert (await gateway.row()).request_id == request_id
    assert [call["request_id"] for call in gateway.fake_calls()] == [request_id]


# --- without rows


async def test_noop_serves_calls_without_rows_and_promises_nothing(gateways):
    gateway = await gateways("noop")

    plain = await gateway.chat(model="fake:m")
    stream = await gateway.chat(model="fake:m", stream=True)
    failed = await gateway.chat(model="fake:m", fake={"status": 429})

    assert [each.status for each in (plain, stream, failed)] == [200, 200, 429]
    assert (await stream.read()).endswith(b"data: [DONE]\n\n")
    assert not any("x-usage-id" in each.headers for each in (plain, stream, failed))
    ledger = await (await gateway.client.get("/v1/log-writer", headers=gateway.headers())).json()
    assert (ledger["strategy"], ledger["accepted"], ledger["shed"]) == ("noop", 0, {})
    usage = await gateway.client.get("/v1/usage", headers=gateway.headers())
    assert usage.status == 501
    labels = {"endpoint": CHAT, "provider": "fake", "status_code": "200"}
    assert gateway.metric("gateway_requests_total", **labels) == 2
