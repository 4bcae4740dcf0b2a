from __future__ import annotations

import asyncio
import json
import logging
import re

import pytest
from aiohttp import ClientPayloadError, web
from letting_in import MASTER_KEY as KEY
from letting_in import let_in
from yarl import URL

from backends import StoreUnavailable
from gateway.errors import BadRequest, InternalError, ServiceUnavailable
from gateway.keys import ACCESS, METRICS, PRINCIPAL, REQUEST_ID
from gateway.metrics import Metrics
from gateway.middlewares import HAS_ROW, add_middlewares

AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
NEW_ID = re.compile("[0-9a-f]{32}")


async def fine(request):
    return web.json_response({"request_id": request[REQUEST_ID]})


async def who(request):
    return web.json_response({"is_master": request[PRINCIPAL].is_master})


async def read(request):
    return web.json_response({"size": len(await request.read())})


async def buggy(request):
    raise RuntimeError(f"prompt: {await request.text()}")


async def unavailable(request):
    raise ServiceUnavailable("Later.", "queue_full", headers={"Retry-After": "1"})


async def store_down(request):
    raise StoreUnavailable("08006", "password=s3cret")


async def bad(request):
    raise BadRequest("No.", "invalid_model", "model")


async def explained(request):
    raise InternalError(headers={"x-usage-id": "1"})


async def begun(request):
    request[HAS_ROW] = True
    raise ServiceUnavailable("Too late.")


async def redirected(request):
    raise web.HTTPFound("/fine")


async def conflict(request):
    raise web.HTTPConflict(text="the handler's own words")


async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    if "bug" in request.query:
        raise RuntimeError("in the middle")
    return response


def make_app():
    app = web.Application(client_max_size=1000)
    let_in(app)
    app[METRICS] = Metrics()
    add_middlewares(app)
    app.add_routes(
        [
            web.get("/fine", fine),
            web.post("/read", read),
            web.post("/bug", buggy),
            web.get("/unavailable", unavailable),
            web.get("/bad", bad),
            web.get("/store-down", store_down),
            web.get("/explained", explained),
            web.get("/begun", begun),
            web.get("/redirected", redirected),
            web.get("/conflict", conflict),
            web.get("/stream", stream),
            web.get("/v1/who", who),
            web.get("/v1/things/{id}", who),
        ]
    )
    return app


@pytest.fixture
async def client(aiohttp_client):
    return await aiohttp_client(make_app())


def requests_total(client, endpoint, status):
    labels = {"endpoint": endpoint, "provider": "", "status_code": str(status)}
    registry = client.app[METRICS].registry
    return registry.get_sample_value("gateway_requests_total", labels)


async def error_of(response):
    body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "code", "param"}
    return body["error"]


async def raw_exchange(client, data):
    """Send ``data`` as it is; what came back until the server closed."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(data)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


# --- the name of a request


@pytest.mark.parametrize("sent", ["a", "client-chosen-1", "!" * 128, 'odd:;"<>~'])
async def test_the_request_id_that_was_sent_is_kept(client, sent):
    response = await client.get("/fine", headers={"x-request-id": sent})

    assert response.headers["x-request-id"] == sent
    assert (await response.json())["request_id"] == sent


@pytest.mark.parametrize("sent", [None, "", "two words", "x" * 129, "tab\there", "ключ", "é"])
async def test_another_request_id_is_replaced_by_a_new_one(client, sent):
    response = await client.get("/fine", headers={} if sent is None else {"x-request-id": sent})

    assert NEW_ID.fullmatch(response.headers["x-request-id"])
    assert (await response.json())["request_id"] == response.headers["x-request-id"]


async def test_a_request_id_of_bytes_that_are_no_text_is_replaced(client):
    answer = await raw_exchange(
        client, b"GET /fine HTTP/1.1\r\nHost: x\r\nx-request-id: \xff\xfe\r\nConnection: close\r\n\r\n"
    )

    assert answer.startswith(b"HTTP/1.1 200")
    assert re.search(rb"x-request-id: [0-9a-f]{32}\r\n", answer, re.IGNORECASE)


async def test_two_requests_have_two_ids(client):
    first, second = await client.get("/fine"), await client.get("/fine")

    assert first.headers["x-request-id"] != second.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/fine", 405),
        ("POST", "/bug", 500),
        ("GET", "/bad", 400),
        ("GET", "/v1/who", 401),
        ("GET", "/stream", 200),
        ("GET", "/redirected", 302),
    ],
)
async def test_every_response_carries_the_request_id(client, method, path, status):
    response = await client.request(method, path, headers={"x-request-id": "mine"}, allow_redirects=False)

    assert (response.status, response.headers["x-request-id"]) == (status, "mine")


# --- errors


async def test_an_unknown_path_is_not_found(client):
    response = await client.get("/nowhere/secret-path")

    error = await error_of(response)
    assert (response.status, error["code"], error["type"]) == (404, "not_found", "not_found_error")
    assert "secret-path" not in json.dumps(error)
    assert requests_total(client, "other", 404) == 1


async def test_a_wrong_method_is_told_the_right_ones(client):
    response = await client.delete("/fine")

    error = await error_of(response)
    assert (response.status, error["code"]) == (405, "method_not_allowed")
    assert "GET" in response.headers["Allow"]


async def test_a_body_over_the_limit_is_refused(client):
    response = await client.post("/read", data=b"x" * 1001)

    error = await error_of(response)
    assert (response.status, error["code"]) == (413, "request_too_large")
    assert requests_total(client, "/read", 413) == 1


async def test_a_compressed_body_over_the_limit_is_refused_too(client):
    response = await client.post("/read", data=b"x" * 1_000_000, compress="gzip")

    assert (await error_of(response))["code"] == "request_too_large"


async def test_a_body_that_is_not_what_its_encoding_says_is_a_bad_request(client):
    response = await client.post("/read", data=b"this is no gzip", headers={"Content-Encoding": "gzip"})

    error = await error_of(response)
    assert (response.status, error["code"]) == (400, "invalid_body")


async def test_a_gateway_error_keeps_its_code_parameter_and_headers(client):
    bad = await client.get("/bad")
    later = await client.get("/unavailable")

    assert bad.status == 400
    assert await error_of(bad) == {
        "message": "No.",
        "type": "invalid_request_error",
        "code": "invalid_model",
        "param": "model",
    }
    assert (later.status, later.headers["Retry-After"]) == (503, "1")
    assert requests_total(client, "/unavailable", 503) == 1


async def test_a_store_that_is_down_is_a_503_that_says_when_to_come_again(client, caplog):
    response = await client.get("/store-down")

    error = await error_of(response)
    assert (response.status, error["code"], error["type"]) == (
        503,
        "store_unavailable",
        "service_unavailable",
    )
    assert response.headers["Retry-After"] == "1"
    assert "s3cret" not in json.dumps(error) + caplog.text
    assert requests_total(client, "/store-down", 503) == 1
    assert client.app[ACCESS].health.is_ailing


async def test_another_http_error_says_no_more_than_its_reason(client):
    response = await client.get("/conflict")

    error = await error_of(response)
    assert (response.status, error["code"], error["message"]) == (409, "conflict", "Conflict.")


async def test_a_bug_is_logged_once_and_the_client_learns_nothing_of_it(client, caplog):
    response = await client.post(
        "/bug", data=b"do not log me", headers={"x-request-id": "mine", "x-secret": "s3cret"}
    )

    text = await response.text()
    assert response.status == 500
    assert json.loads(text)["error"]["code"] == "internal_error"
    assert "RuntimeError" not in text and "do not log me" not in text
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "internal_error"
    assert record.exc_info is not None
    assert (record.request_id, record.endpoint) == ("mine", "/bug")
    assert "s3cret" not in caplog.text
    assert requests_total(client, "/bug", 500) == 1


async def test_an_internal_error_that_was_explained_already_is_not_logged_again(client, caplog):
    response = await client.get("/explained")

    assert (response.status, response.headers["x-usage-id"]) == (500, "1")
    assert not caplog.records


async def test_a_bug_within_a_stream_cuts_it_instead_of_writing_a_second_head(client, caplog):
    response = await client.get("/stream?bug=1")

    with pytest.raises(ClientPayloadError):
        await response.read()
    assert response.status == 200
    assert [record.getMessage() for record in caplog.records] == ["internal_error", "response_cut"]


async def test_a_stream_without_a_bug_ends_as_it_should(client):
    response = await client.get("/stream")

    assert await response.read() == b"data: 1\n\n"


async def test_a_client_that_leaves_while_sending_its_body_is_no_error_of_ours(caplog):
    arrived, ended = asyncio.Event(), asyncio.Event()

    @web.middleware
    async def notice(request, handler):
        arrived.set()
        try:
            return await handler(request)
        finally:
            ended.set()

    app = make_app()
    app.middlewares.insert(0, notice)
    # Not the test server: it cancels the handler of a client that left, which the gateway's own does not.
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\nonly the begin")
        await asyncio.wait_for(arrived.wait(), 10)
        writer.close()
        await asyncio.wait_for(ended.wait(), 10)
    finally:
        await runner.cleanup()

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    labels = {"endpoint": "/read", "provider": "", "status_code": "499"}
    assert app[METRICS].registry.get_sample_value("gateway_requests_total", labels) == 1


async def test_a_success_is_no_refusal(client):
    await client.get("/fine")

    assert b"gateway_requests_total{" not in client.app[METRICS].render()[0]


async def test_a_call_that_began_is_counted_by_its_row_alone(client):
    response = await client.get("/begun")

    assert response.status == 503
    assert requests_total(client, "/begun", 503) is None


# --- keys


@pytest.mark.parametrize("headers", [AUTHORIZED, {"x-api-key": KEY}])
async def test_the_right_key_makes_a_principal(client, headers):
    response = await client.get("/v1/who", headers=headers)

    assert await response.json() == {"is_master": True}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Bearer nope"}, "invalid_api_key"),
        ({"x-api-key": "é"}, "invalid_api_key"),
    ],
)
async def test_a_missing_or_wrong_key_is_unauthorized(client, headers, code):
    response = await client.get("/v1/things/1", headers=headers)

    error = await error_of(response)
    assert (response.status, error["code"], error["type"]) == (401, code, "authentication_error")
    assert requests_total(client, "/v1/things/{id}", 401) == 1


async def test_a_key_of_bytes_that_are_no_text_is_unauthorized(client):
    answer = await raw_exchange(
        client,
        b"GET /v1/who HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n",
    )

    assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("path", ["/v1/nowhere", "/%76%31/who", "/v1/%77ho"])
async def test_no_spelling_of_a_path_gets_round_the_key(client, path):
    response = await client.get(URL(path, encoded=True))

    assert response.status == 401


async def test_what_is_outside_needs_no_key(client):
    assert (await client.get("/fine")).status == 200


async def test_a_wrong_key_is_never_logged(client, caplog):
    with caplog.at_level(logging.DEBUG):
        await client.get("/v1/who", headers={"Authorization": "Bearer sk-very-secret"})

    assert "sk-very-secret" not in caplog.text
