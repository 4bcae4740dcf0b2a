"""The official clients, unmodified, before a whole gateway.

Each call's ``x-usage-id`` is noted as it arrives, by a hook that the clients' own HTTP library offers: at its
end each test holds every one of them against the rows, so that no test has to say it.
"""

from __future__ import annotations

import json
import logging

import anthropic
import openai
import pytest
from answering import CACHED, COMPLETION, COST, PROMPT, WIRES
from integration.conftest import (
    gateways,
    log,
    looking,
    made,
    manage,
    nobodys_port,
    pytest_asyncio_loop_factories,
    stage,
)

__all__ = [
    "gateways",
    "log",
    "looking",
    "made",
    "manage",
    "nobodys_port",
    "pytest_asyncio_loop_factories",
    "stage",
]

KEY = "tg-test"
PRICE = {"input_per_million": "1", "output_per_million": "10", "cached_input_per_million": "0.1"}
PRICES = {
    **dict.fromkeys(("claude:m", "act:m", "fake:m", "stage:m"), PRICE),
    "fake:painter": {"input_per_million": "0", "output_per_million": "0", "per_image": "0.04"},
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """The clients log what they send; that nothing of it is in a log is promised for the gateway alone."""
    for name in ("anthropic", "openai"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", False)


@pytest.fixture
async def gateway(gateways):
    return await gateways("sqlite", pricing=PRICES)


@pytest.fixture
def hear(gateway):
    """Notes what is promised with a response: hooks of the clients that wait, and of those that block."""

    def blocking(response):
        gateway.heard(response.headers)

    async def waiting(response):
        blocking(response)

    return {"response": [waiting]}, {"response": [blocking]}


@pytest.fixture
async def gpt(gateway, hear):
    """OpenAI's client."""
    http = openai.DefaultAsyncHttpxClient(event_hooks=hear[0])
    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, http_client=http
    ) as client:
        yield client


@pytest.fixture
async def claude(gateway, hear):
    """Anthropic's client."""
    http = anthropic.DefaultAsyncHttpxClient(event_hooks=hear[0])
    async with anthropic.AsyncAnthropic(
        base_url=gateway.url, api_key=KEY, max_retries=0, http_client=http
    ) as client:
        yield client


@pytest.fixture
async def blocking_gpt(gateway, hear):
    """OpenAI's client that blocks, for a thread of its own."""
    http = openai.DefaultHttpxClient(event_hooks=hear[1])
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture
async def blocking_claude(gateway, hear):
    """Anthropic's client that blocks, for a thread of its own."""
    http = anthropic.DefaultHttpxClient(event_hooks=hear[1])
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture
def says(stage):
    """Makes the provider say a text and call tools, in the format of the endpoint that it is asked at."""

    def go(text="", *calls):
        async def act(request):
            wire = WIRES[request.path]
            if json.loads(stage.bodies[-1]).get("stream"):
                stage.stream(*wire.events(text, calls))
            else:
                stage.plain(wire.answer(text, calls))
            return await stage.act(request)

        stage.act = act

    return go


@pytest.fixture
def asked(stage):
    """What the provider was asked, as objects."""
    return lambda: [json.loads(body) for body in stage.bodies]


@pytest.fixture
def told(gateway):
    """The one row, which is the one that the client heard of: endpoint, ending, counts and cost."""

    async def go(endpoint):
        row = await gateway.row()
        assert gateway.promised == [row.id]
        assert row.endpoint == endpoint
        counts = (row.prompt_tokens, row.completion_tokens, row.cached_tokens)
        return row.status, row.status_code, row.usage_source, *counts, row.cost

    return go


@pytest.fixture
def paid(told):
    """Checks that there is one row, for a call that was answered as ``says`` says."""

    async def go(endpoint):
        assert await told(endpoint) == ("success", 200, "provider", PROMPT, COMPLETION, CACHED, COST)

    return go
