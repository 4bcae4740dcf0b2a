"""What every response tells browsers, and whose pages may call."""

from __future__ import annotations

import pytest
from aiohttp import web
from letting_in import MASTER_KEY, let_in

from gateway.keys import METRICS
from gateway.metrics import Metrics
from gateway.middlewares import add_middlewares

OURS = "https://app.example.com"
AUTHORIZED = {"Authorization": f"Bearer {MASTER_KEY}"}
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


async def fine(request):
    return web.json_response({})


async def bug(request):
    raise RuntimeError


async def own(request):
    return web.Response(headers={"Cache-Control": "max-age=60", "X-Frame-Options": "SAMEORIGIN"})


async def stream(request):
    response = web.StreamResponse(headers={"Cache-Control": "no-cache"})
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    return response


@pytest.fixture
def serve(aiohttp_client):
    async def go(origins=()):
        app = web.Application()
        app[METRICS] = Metrics()
        let_in(app)
        add_middlewares(app, origins)
        app.add_routes(
            [
                web.get("/health", fine),
                web.post("/v1/fine", fine),
                web.get("/v1/bug", bug),
                web.get("/v1/own", own),
                web.get("/v1/stream", stream),
            ]
        )
        return await aiohttp_client(app)

    return go


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/health", {}, 200),
        ("POST", "/v1/fine", AUTHORIZED, 200),
        ("POST", "/v1/fine", {}, 401),
        ("GET", "/v1/bug", AUTHORIZED, 500),
        ("GET", "/v1/stream", AUTHORIZED, 200),
        ("GET", "/nowhere", {}, 404),
        ("PUT", "/health", {}, 405),
    ],
)
async def test_no_response_may_be_guessed_at_framed_or_told_on(serve, method, path, headers, status) -> None:
    client = await serve()

    response = await client.request(method, path, headers=headers)

    assert response.status == status
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "no-referrer"


async def test_what_a_key_opens_is_kept_by_nobody_on_the_way(serve) -> None:
    client = await serve()

    for path in ("/v1/bug", "/v1/nowhere"):
        response = await client.get(path, headers=AUTHORIZED)
        assert (response.headers["Cache-Control"], response.headers["Vary"]) == ("no-store", "Authorization")
    assert "Cache-Control" not in (await client.get("/health")).headers


async def test_what_a_handler_says_itself_stays(serve) -> None:
    client = await serve()

    own = await client.get("/v1/own", headers=AUTHORIZED)
    stream = await client.get("/v1/stream", headers=AUTHORIZED)

    assert (own.headers["Cache-Control"], own.headers["X-Frame-Options"]) == ("max-age=60", "SAMEORIGIN")
    assert (stream.headers["Cache-Control"], stream.headers["Vary"]) == ("no-cache", "Authorization")


# --- other people's pages


async def test_no_page_may_call_unless_its_origin_is_configured(serve) -> None:
    client = await serve()

    preflight = await client.options("/v1/fine", headers={"Origin": OURS, **ASKS})
    answer = await client.post("/v1/fine", headers={"Origin": OURS, **AUTHORIZED})

    assert (preflight.status, answer.status) == (401, 200)
    for response in (preflight, answer):
        assert not [name for name in response.headers if name.startswith("Access-Control-")]


async def test_a_page_of_a_configured_origin_may_ask_without_a_key_and_call_with_one(serve) -> None:
    client = await serve([OURS, "http://localhost:3000"])

    preflight = await client.options("/v1/fine", headers={"Origin": OURS, **ASKS})
    answer = await client.post("/v1/fine", headers={"Origin": OURS, **AUTHORIZED})

    assert (preflight.status, answer.status) == (204, 200)
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    for response in (preflight, answer):
        assert response.headers["Access-Control-Allow-Origin"] == OURS
        assert "Access-Control-Allow-Credentials" not in response.headers
        assert response.headers["Vary"] == "Authorization, Origin"
    assert "x-usage-id" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", f"{OURS}.evil.example", OURS.upper(), "null", f"{OURS}/", ""]
)
async def test_a_page_of_another_origin_may_not(serve, origin) -> None:
    client = await serve([OURS])

    preflight = await client.options("/v1/fine", headers={"Origin": origin, **ASKS})
    answer = await client.post("/v1/fine", headers={"Origin": origin, **AUTHORIZED})

    for response in (preflight, answer):
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.headers["Vary"]


async def test_a_page_may_send_the_headers_that_its_client_has_of_its_own(serve) -> None:
    client = await serve([OURS])
    asked = {**ASKS, "Access-Control-Request-Headers": "authorization,x-stainless-os, x-stainless-lang"}

    preflight = await client.options("/v1/fine", headers={"Origin": OURS, **asked})

    allowed = preflight.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"authorization", "content-type", "x-stainless-os", "x-stainless-lang"} <= set(allowed)


@pytest.mark.parametrize("asked", ["a b", 'x"y', "x;y", "x" * 5000])
async def test_what_is_no_name_of_a_header_is_not_repeated(serve, asked) -> None:
    client = await serve([OURS])

    preflight = await client.options(
        "/v1/fine", headers={"Origin": OURS, **ASKS, "Access-Control-Request-Headers": asked}
    )

    assert asked not in preflight.headers["Access-Control-Allow-Headers"]


async def test_a_page_can_read_why_it_was_refused(serve) -> None:
    client = await serve([OURS])

    response = await client.post("/v1/fine", headers={"Origin": OURS})

    assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (401, OURS)


async def test_every_page_may_call_if_all_are_configured_but_never_with_credentials(serve) -> None:
    client = await serve(["*"])

    preflight = await client.options("/v1/fine", headers={"Origin": "https://any.example", **ASKS})

    assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in preflight.headers


async def test_options_that_are_no_preflight_are_an_ordinary_request(serve) -> None:
    client = await serve([OURS])

    assert (await client.options("/health", headers={"Origin": OURS})).status == 405
