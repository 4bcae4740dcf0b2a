"""What all parts of the management API have in common."""

from __future__ import annotations

import base64
import json

import pytest

from backends import StoreUnavailable
from gateway.keys import STORE
from gateway.openapi.management_operations import MANAGEMENT
from gateway.openapi.table import TABLE

MANAGED = [each for each in TABLE if each.needs == "master"]
WITH_BODY = [each for each in MANAGED if each.body is not None]
IN_THE_STORE = [each for each in MANAGEMENT if each.body is None or each.id.startswith("change")]
LISTS = ["/v1/keys", "/v1/users", "/v1/budgets", "/v1/pricing"]


def path_of(operation):
    return operation.template.replace("{id}", "some")


def refused(answer):
    status, body = answer
    return status, body["error"]["code"], body["error"]["param"]


async def sent(gateway, body, path="/v1/users", method="POST", **headers):
    asked = gateway.client.request(method, path, data=body, headers=gateway.headers(**headers))
    async with asked as response:
        return response.status, await response.json()


# --- who may


async def test_an_ordinary_key_manages_nothing(manage, made):
    key = await made("/v1/keys")

    for operation in MANAGED:
        answer = await manage(operation.method, path_of(operation), {}, key=key["key"])

        assert refused(answer) == (403, "master_key_required", None)


async def test_nothing_is_managed_without_a_key(gateway):
    for operation in MANAGED:
        async with gateway.client.request(operation.method, path_of(operation), json={}) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (401, "missing_api_key")


# --- what is asked


async def test_an_unknown_parameter_is_refused_and_never_ignored(manage):
    for operation in [each for each in MANAGED if each.id != "get_log_writer"]:
        answer = await manage(operation.method, f"{path_of(operation)}?verbose=1", {})

        assert refused(answer) == (400, "unknown_parameter", "verbose")


@pytest.mark.parametrize(
    "body", [b"{", b'{"a": 1,}', b"\xff", b"[" * 100_000, b"\xef\xbb\xbf{}", b'{"a": "\x01"}']
)
async def test_a_body_that_is_no_json_is_refused(gateway, body):
    for operation in WITH_BODY:
        answer = await sent(gateway, body, path_of(operation), operation.method)

        assert refused(answer) == (400, "invalid_json", None)


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"1.5"])
async def test_a_body_that_is_no_object_is_refused(gateway, body):
    for operation in WITH_BODY:
        answer = await sent(gateway, body, path_of(operation), operation.method)

        assert refused(answer) == (422, "invalid_request", None)


async def test_a_member_that_nobody_knows_is_named(gateway):
    for operation in WITH_BODY:
        answer = await sent(gateway, b'{"colour": "swordfish"}', path_of(operation), operation.method)

        assert refused(answer)[:2] == (422, "invalid_request")
        assert "swordfish" not in json.dumps(answer)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
async def test_a_body_of_another_content_type_is_refused(gateway, kind):
    for operation in WITH_BODY:
        answer = await sent(gateway, b"{}", path_of(operation), operation.method, **{"Content-Type": kind})

        assert refused(answer) == (415, "unsupported_media_type", None)


async def test_a_body_that_is_too_large_is_refused(gateway):
    body = json.dumps({"user_id": "x", "alias": "y" * 300_000}).encode()

    assert refused(await sent(gateway, body)) == (413, "request_too_large", None)


async def test_a_list_names_the_entry_that_is_wrong(manage):
    answer = await manage("POST", "/v1/keys", {"allowed_models": ["a:b", ""]})

    assert refused(answer) == (422, "invalid_request", "allowed_models.1")
    assert refused(await manage("POST", "/v1/keys", {"allowed_models": []}))[2] == "allowed_models"


# --- the store


async def test_a_store_that_is_down_is_told_and_may_be_asked_again(gateway, manage, monkeypatch):
    async def down(*args, **kwargs):
        raise StoreUnavailable("08006", "secret dsn")

    with monkeypatch.context() as patched:
        for name in ("get", "list", "update", "remove"):
            patched.setattr(gateway.app[STORE], name, down)

        for operation in IN_THE_STORE:
            status, answer = await manage(operation.method, path_of(operation), {})

            assert (status, answer["error"]["code"]) == (503, "store_unavailable")
            assert "secret" not in json.dumps(answer)


# --- pages


async def make_some(path, made, count):
    for number in range(count):
        members = {
            "/v1/keys": {"name": f"k{number}"},
            "/v1/users": {"user_id": f"user {number:03}"},
            "/v1/budgets": {"max_usd": number},
            "/v1/pricing": {"model": f"p:{number}", "input_per_million": 1, "output_per_million": 1},
        }
        yield await made(path, **members[path])


def id_of(record):
    return record.get("id") or record["user_id"]


@pytest.mark.parametrize("path", LISTS)
async def test_pages_follow_each_other_without_gap_or_overlap_while_records_are_added(manage, made, path):
    ids = [id_of(each) async for each in make_some(path, made, 5)]
    seen, query = [], "?limit=2"

    while True:
        status, page = await manage("GET", f"{path}{query}")
        assert status == 200 and page["has_more"] == (page["cursor"] is not None)
        seen += map(id_of, page["data"])
        if not page["has_more"]:
            break
        if path == "/v1/users":  # one that sorts before what was read
            await made(path, user_id=f"a{len(seen)}")
        query = f"?limit=2&cursor={page['cursor']}"

    assert seen == ids


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("limit", "0"), ("limit", "1001"), ("limit", "x"), ("cursor", ""), ("cursor", "!!"), ("cursor", "AAAA")],
)
async def test_a_bad_parameter_is_named(manage, parameter, value):
    for path in LISTS:
        answer = await manage("GET", f"{path}?{parameter}={value}")

        assert refused(answer) == (400, "invalid_parameter", parameter)


async def test_the_cursor_of_another_list_is_refused(manage, made):
    async for _ in make_some("/v1/budgets", made, 2):
        pass
    _, page = await manage("GET", "/v1/budgets?limit=1")

    for cursor in (page["cursor"], base64.urlsafe_b64encode(b"key:a\0b").decode()):
        answer = await manage("GET", f"/v1/keys?cursor={cursor}")
        assert refused(answer) == (400, "invalid_parameter", "cursor")


async def test_a_page_has_100_records_unless_asked_otherwise(manage, made):
    async for _ in make_some("/v1/budgets", made, 101):
        pass

    _, page = await manage("GET", "/v1/budgets")
    assert (len(page["data"]), page["has_more"]) == (100, True)
    _, page = await manage("GET", "/v1/budgets?limit=1000")
    assert (len(page["data"]), page["has_more"]) == (101, False)


async def test_a_parameter_given_twice_is_refused(manage):
    assert refused(await manage("GET", "/v1/keys?limit=1&limit=1")) == (400, "invalid_parameter", "limit")
