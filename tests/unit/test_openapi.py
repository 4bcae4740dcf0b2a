"""The description of the API and the page that shows it: neither drifts from what is served."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from aiohttp import web

import gateway
from gateway.handlers import documentation
from gateway.keys import OPENAPI
from gateway.openapi.table import TABLE
from gateway.routes import add_routes

BROWSER = Path(__file__).with_name("docs_page.js")
PAGE = Path(gateway.__file__).parent / "openapi" / "docs.html"


@pytest.fixture(scope="module")
def app():
    app = web.Application()
    add_routes(app)
    return app


@pytest.fixture(scope="module")
def described(app):
    return json.loads(app[OPENAPI]())


def operations(described):
    for path, item in described["paths"].items():
        for method, operation in item.items():
            yield path, method.upper(), operation


def references(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from references(each)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


def test_what_is_served_is_described_and_nothing_else(app, described):
    served = {
        (route.resource.canonical, route.method) for route in app.router.routes() if route.method != "HEAD"
    }

    assert {(path, method) for path, method, _ in operations(described)} == served
    assert len(served) == len(TABLE) > 30


def test_the_description_names_its_version(described):
    assert described["openapi"].startswith("3.1.")
    assert described["info"]["version"] == version("tallygate")


def test_every_reference_leads_somewhere_and_everything_is_referred_to(described):
    found = set(references(described))

    for reference in found:
        node = described
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    parts = described["components"]
    kept = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in parts[kind]}
    assert kept == found


def test_every_operation_has_a_name_of_its_own_and_says_which_key_it_needs(described):
    names = [operation["operationId"] for _, _, operation in operations(described)]

    assert len(set(names)) == len(names)
    for path, _, operation in operations(described):
        needs_key = path.startswith("/v1/")
        assert bool(operation["security"]) == needs_key
        assert {"401", "403", "503"} <= operation["responses"].keys() or not needs_key
        assert "404" in operation["responses"] or "{" not in path


def test_no_member_is_lost_for_its_name_or_shown_with_a_title(described):
    for name, schema in described["components"]["schemas"].items():
        assert "title" not in schema, name
        assert all("title" not in each for each in schema.get("properties", {}).values()), name


def test_a_change_promises_no_defaults(described):
    for name, schema in described["components"]["schemas"].items():
        if name.endswith("Change"):
            assert not [each for each in schema["properties"].values() if "default" in each]
            assert "required" not in schema


# --- the page


async def test_the_page_may_run_its_own_script_and_ask_this_gateway_and_nothing_else(app, aiohttp_client):
    served = web.Application()
    served.router.add_get("/docs", documentation.docs)
    client = await aiohttp_client(served)

    response = await client.get("/docs")
    text = await response.text()

    assert (response.status, response.content_type) == (200, "text/html")
    policy = dict(
        each.strip().split(" ", 1) for each in response.headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    for element in ("script", "style"):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{element}-src"] == f"'sha256-{digest}'"


def test_the_page_needs_no_other_file_and_nothing_that_its_policy_forbids():
    text = PAGE.read_text()

    assert re.findall(r"""(?:https?:)?//[\w.-]+\.\w+""", text) == []
    assert re.findall(r"""<[^>]+\s(?:style|on\w+|src)\s*=""", text) == []
    assert "innerHTML" not in text and "localStorage" not in text


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_shows_every_operation_and_sends_what_is_typed(app, tmp_path):
    (tmp_path / "openapi.json").write_text(app[OPENAPI]())
    command = ["node", str(BROWSER), str(PAGE), str(tmp_path / "openapi.json")]

    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (answer.returncode, answer.stderr) == (0, "")
    report = json.loads(answer.stdout)
    assert report["operations"] == len(TABLE)
    assert json.loads(report["body"])["model"] == "openai:gpt-4o-mini"
    assert report["sent"] == ["POST ./v1/keys/a%2Fb/rotate Bearer tg-x"]
    assert report["output"].startswith("200 ")
    assert report["output"].endswith('{\n  "id": 1.10,\n  "list": [\n    "{",\n    []\n  ]\n}')
