"""The description of the API against the gateway that serves it: whatever is asked, the answer is one that it
describes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from gateway.openapi.document import document
from gateway.openapi.table import TABLE

KEY = "tg-test"
LIMIT_S = 240.0
"""A tenth of it, unless others keep the machine busy."""
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed"
    ),
]


async def ask_at_random(gateway, folder, *options):
    """What schemathesis found, by its exit status and its words. Its settings are in ``folder``, and the
    description."""
    command = ["-m", "schemathesis.cli", "run", "openapi.json", "--url", gateway.url, "--no-color"]
    settings = ["--header", f"Authorization: Bearer {KEY}", "--phases", "coverage,fuzzing"]
    settings += ["--generation-deterministic", "--continue-on-failure"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        *settings,
        *options,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        out, _ = await process.communicate()
        pytest.fail(f"not done in {LIMIT_S:.0f} s:\n{out.decode()}")
    return process.returncode, out.decode()


@pytest.fixture
async def known(made):
    """One record of each kind, by the path of its kind."""
    price = {"model": "fake:m", "input_per_million": 1, "output_per_million": 1}
    return {
        "/v1/keys": (await made("/v1/keys"))["id"],
        "/v1/users": (await made("/v1/users", user_id="ann"))["user_id"],
        "/v1/budgets": (await made("/v1/budgets", max_usd=1))["id"],
        "/v1/pricing": (await made("/v1/pricing", **price, effective_at="9999-01-01T00:00:00Z"))["id"],
    }


def describe(folder, **models):
    """Put the description where it is looked for. With ``model`` it knows no other one."""
    described = document(TABLE, "0")
    for name, schema in described["components"]["schemas"].items():
        for model in models.values():
            if name.endswith("Request"):
                is_claude = name == "MessageRequest"
                schema["properties"]["model"] = {"enum": ["claude:m" if is_claude else model]}
    (folder / "openapi.json").write_text(json.dumps(described))


def configuration(known):
    """Has what exists be asked for and changed, too, not only what does not; it is not deleted."""
    names = [(f"{method} {path}/{{id}}", id) for path, id in known.items() for method in ("GET", "PATCH")]
    names.append(("POST /v1/keys/{id}/rotate", known["/v1/keys"]))
    entry = '[[operations]]\ninclude-name = "{}"\nparameters = {{ "path.id" = "{}" }}\n'
    return "\n".join(entry.format(*each) for each in names)


async def test_every_operation_answers_as_it_is_described(gateway, known, tmp_path: Path):
    describe(tmp_path)
    (tmp_path / "schemathesis.toml").write_text(configuration(known))
    gateway.bugs = 1  # schemathesis begins with NUL in a header, which aiohttp itself refuses, and logs

    status, told = await ask_at_random(
        gateway,
        tmp_path,
        *("--checks", f"{CHECKS},negative_data_rejection"),
        *("--exclude-tag", "Inference"),
        *("--max-examples", "3"),
    )

    assert status == 0, told


async def test_every_call_answers_as_it_is_described(gateway, tmp_path: Path):
    describe(tmp_path, model="fake:m")
    gateway.bugs, gateway.unheard = 1, None

    status, told = await ask_at_random(
        gateway, tmp_path, "--checks", CHECKS, "--include-tag", "Inference", "--max-examples", "20"
    )

    assert status == 0, told
    assert len(await gateway.rows()) > 20, told
