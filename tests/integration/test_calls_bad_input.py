"""What bad input gets: a 4xx in the OpenAI shape with a stable code, no row, and no call to a provider."""

from __future__ import annotations

import gc
import json
from io import BytesIO

import pytest
from aiohttp import FormData, web
from letting_in import make_user

from gateway.keys import STORE, WRITER

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
SPOKEN = [{"role": "user", "content": "say swordfish"}]


@pytest.fixture
async def refused(gateway):
    """Checks a refusal: its status, code and parameter, and that nothing else has happened."""

    async def check(response, status, code, param=None):
        text = await response.text()
        error = json.loads(text)["error"]
        assert (response.status, error["code"], error["param"]) == (status, code, param)
        assert set(error) == {"message", "type", "code", "param"}
        assert error["message"] and "Traceback" not in text and "swordfish" not in text
        kinds = {401: "authentication_error", 404: "not_found_error"}
        assert error["type"] == kinds.get(status, "invalid_request_error")
        assert response.headers["Content-Type"].startswith("application/json")
        assert response.headers["x-request-id"] and "x-usage-id" not in response.headers
        assert gateway.provider_calls == 0
        assert (gateway.asking, gateway.counts.accepted) == (0, 0)
        assert gateway.app[WRITER].stats().shed == {}
        assert await gateway.rows() == []
        assert f'provider="",status_code="{status}"' in await metrics(gateway)

    return check


async def metrics(gateway):
    return await (await gateway.client.get("/metrics")).text()


def chat(**members):
    """A good body, but for ``members``; one that is ``...`` is left out."""
    body = {"model": "stage:m", "messages": SPOKEN, **members}
    return {key: value for key, value in body.items() if value is not ...}


def embed(**members):
    body = {"model": "stage:m", "input": "swordfish", **members}
    return {key: value for key, value in body.items() if value is not ...}


GOOD = json.dumps(chat()).encode()
REFUSALS = 10
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"swordfish",
        b"{'model': 'stage:m'}",
        b'{"model": "stage:m",}',
        b'{"model": "stage:m"} {}',
        GOOD[:-1],
        GOOD + b"x",
        b"\xff" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD.replace(b"}]}", b'}], "seed": NaN}'),
        GOOD.replace(b"}]}", b'}], "seed": -Infinity}'),
        GOOD.replace(b"}]}", b'}], "seed": 1e999}'),
        GOOD.replace(b"}]}", b'}], "seed": ' + b"9" * 10_000 + b"}"),
        GOOD.replace(b"}]}", b'}], "deep": ' + DEEP + b"}"),
        DEEP,
    ],
    ids=range(17),
)
async def test_a_body_that_is_no_json(gateway, refused, path, raw):
    await refused(await gateway.post(raw, path), 400, "invalid_json")


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS])
@pytest.mark.parametrize("raw", [b"[]", b'"swordfish"', b"1", b"null", b"true", b'[{"model": "stage:m"}]'])
async def test_a_body_that_is_no_object(gateway, refused, path, raw):
    await refused(await gateway.post(raw, path), 400, "invalid_body")


async def test_a_body_with_members_without_end(gateway, refused):
    many = {f"swordfish-{n}": n for n in range(2000)}

    await refused(await gateway.post(chat(**many)), 400, "invalid_body")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (chat(model=...), "missing_model", "model"),
        (chat(model=None), "missing_model", "model"),
        (chat(model=""), "invalid_model", "model"),
        (chat(model=5), "invalid_model", "model"),
        (chat(model=["stage:m"]), "invalid_model", "model"),
        (chat(model="stage:" + "m" * 251), "model_too_long", "model"),
        (chat(model="m" * 1_000_000), "model_too_long", "model"),
        (chat(user="u" * 257), "user_too_long", "user"),
        (chat(user=7), "invalid_user", "user"),
        (chat(user=""), "invalid_user", "user"),
        (chat(messages=...), "invalid_messages", "messages"),
        (chat(messages=None), "invalid_messages", "messages"),
        (chat(messages=[]), "invalid_messages", "messages"),
        (chat(messages="say swordfish"), "invalid_messages", "messages"),
        (chat(messages={"role": "user"}), "invalid_messages", "messages"),
        (chat(stream="true"), "invalid_stream", "stream"),
        (chat(stream=1), "invalid_stream", "stream"),
        (chat(stream=True, stream_options=[]), "invalid_stream_options", "stream_options"),
        (chat(stream=True, stream_options="all"), "invalid_stream_options", "stream_options"),
    ],
)
async def test_a_chat_that_cannot_be_a_call(gateway, refused, body, code, param):
    await refused(await gateway.post(body), 400, code, param)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (embed(model=...), "missing_model", "model"),
        (embed(model="stage:" + "m" * 251), "model_too_long", "model"),
        (embed(user="u" * 257), "user_too_long", "user"),
        (embed(input=...), "invalid_input", "input"),
        (embed(input=None), "invalid_input", "input"),
        (embed(input=""), "invalid_input", "input"),
        (embed(input=[]), "invalid_input", "input"),
        (embed(stream=True), "invalid_stream", "stream"),
    ],
)
async def test_embeddings_that_cannot_be_a_call(gateway, refused, body, code, param):
    await refused(await gateway.post(body, EMBEDDINGS), 400, code, param)


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS])
@pytest.mark.parametrize(
    "model",
    ["gpt-4o-mini", "other:m", "other/m", "Stage:m", " stage:m", ":m", "/m", "stage", "stage:", ":", "\0"],
)
async def test_a_model_of_no_provider(gateway, refused, path, model):
    body = chat(model=model) if path == CHAT else embed(model=model)

    await refused(await gateway.post(body, path), 404, "model_not_found", "model")


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS])
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "json", "", None]
)
async def test_a_wrong_content_type(gateway, refused, path, content_type):
    headers = gateway.headers()
    del headers["Content-Type"]
    if content_type is not None:
        headers["Content-Type"] = content_type

    response = await gateway.client.post(path, data=GOOD, headers=headers, skip_auto_headers=["Content-Type"])

    await refused(response, 415, "unsupported_media_type")


async def test_a_form_is_no_json(gateway, refused):
    headers = {"Authorization": gateway.headers()["Authorization"]}
    form = FormData({"model": "stage:m"}, default_to_multipart=True)

    response = await gateway.client.post(CHAT, data=form, headers=headers)

    await refused(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_over_the_limit(gateway, refused, is_chunked):
    async def pieces():
        for _ in range(33):
            yield b" " * (1024 * 1024)

    data = pieces() if is_chunked else BytesIO(b" " * (32 * 1024 * 1024 + 1))
    response = await gateway.client.post(CHAT, data=data, headers=gateway.headers())

    await refused(response, 413, "request_too_large")


async def test_a_compressed_body_over_the_limit(gateway, refused):
    response = await gateway.client.post(
        CHAT, data=BytesIO(b" " * (40 * 1024 * 1024)), compress="gzip", headers=gateway.headers()
    )

    await refused(response, 413, "request_too_large")


async def test_a_body_that_is_not_what_its_encoding_says(gateway, refused):
    gateway.bugs = 1  # of aiohttp's: it logs that it cannot skip the rest of such a body
    response = await gateway.post(GOOD, **{"Content-Encoding": "gzip"})

    await refused(response, 400, "invalid_body")


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS, "/v1/models", "/v1/nowhere"])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": ""}, "missing_api_key"),
        ({"Authorization": "Bearer "}, "missing_api_key"),
        ({"Authorization": "Basic dGctdGVzdDo="}, "missing_api_key"),
        ({"Authorization": "tg-test"}, "missing_api_key"),
        ({"Authorization": "Bearer tg-wrong"}, "invalid_api_key"),
        ({"Authorization": "Bearer tg-test2"}, "invalid_api_key"),
        ({"x-api-key": "tg-wrong"}, "invalid_api_key"),
    ],
)
async def test_a_missing_or_wrong_key(gateway, refused, path, headers, code):
    sent = {"Content-Type": "application/json", **headers}
    method = "GET" if path == "/v1/models" else "POST"

    response = await gateway.client.request(method, path, data=GOOD, headers=sent)

    await refused(response, 401, code)
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_bad_body_with_a_wrong_key_learns_of_the_key_alone(gateway, refused):
    response = await gateway.client.post(CHAT, data=b"{", headers={"Authorization": "Bearer tg-wrong"})

    await refused(response, 401, "invalid_api_key")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CHAT, 405, "method_not_allowed"),
        ("PUT", EMBEDDINGS, 405, "method_not_allowed"),
        ("POST", "/v1/nowhere", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("POST", "/chat/completions", 404, "not_found"),
    ],
)
async def test_a_path_or_method_that_is_not_there(gateway, refused, method, path, status, code):
    response = await gateway.client.request(method, path, data=GOOD, headers=gateway.headers())

    await refused(response, status, code)


# --- and what is not bad


@pytest.mark.parametrize(
    "members",
    [
        {"model": "stage:" + "m" * 250},
        {"model": "stage:" + "漢" * 250},
        {"model": "stage:m\x00\ud83d'; DROP TABLE usage_logs; --"},
        {"user": "u" * 256},
        {"user": None, "stream": None, "stream_options": None, "metadata": None},
        {"metadata": {"team": "a\x00\ud800", "n": 10**400, "deep": [[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}},
        {"metadata": "text"},
        {"metadata": {str(n): "x" * 500 for n in range(100)}},
        {"messages": ["text", 7, None, {"content": {"content": ["x"]}}, {"content": [None, {"text": 5}]}]},
    ],
    ids=range(9),
)
async def test_what_is_only_strange_is_a_call_with_a_row(gateways, members):
    gateway = await gateways("sqlite")
    gateway.stage.plain(gateway.stage.completion("swordfish", 3, 4))
    await gateway.app[STORE].add(make_user("u" * 256))

    response = await gateway.post(chat(**members))

    assert response.status == 200
    assert (await gateway.row()).total_tokens == 7


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
async def test_json_by_any_other_name_is_json(gateway, content_type):
    gateway.stage.plain(gateway.stage.completion("swordfish", 3, 4))

    response = await gateway.post(GOOD, **{"Content-Type": content_type})

    assert response.status == 200


async def test_stream_options_are_never_too_deep_once_the_call_has_begun(gateway):
    """Whatever the parser lets in must go out again, or be refused before there is a place."""
    statuses = set()
    gateway.stage.stream(gateway.stage.usage(1, 1), gateway.stage.DONE)
    for depth in (1, 100, 300, 600, 900, 950, 980, 990, 1000, 3000, 10_000, 100_000):
        options = b'{"x": ' + b"[" * depth + b"]" * depth + b"}"
        raw = GOOD.replace(b"}]}", b'}], "stream": true, "stream_options": ' + options + b"}")
        response = await gateway.post(raw)
        statuses.add(response.status)

    assert statuses == {200, 400}
    assert {row.status for row in await gateway.rows()} == {"success"}


async def test_what_is_refused_is_forgotten_at_once(gateway):
    """Its body is as large as it likes, and the collector that looks for cycles comes late."""
    refused = [
        (chat(model="stage"), {}, 404),
        (chat(messages=[]), {}, 400),
        (b"{", {}, 400),
        (chat(), {"Authorization": "Bearer tg-nobody"}, 401),
    ]
    gc.collect()
    gc.disable()
    try:
        for body, headers, status in refused * REFUSALS:
            assert (await gateway.post(body, **headers)).status == status
        left = sum(isinstance(each, web.Request) for each in gc.get_objects())
    finally:
        gc.enable()

    assert left < REFUSALS / 2, "only the last ones, which their connection still knows"
