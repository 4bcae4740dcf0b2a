from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace

import pytest
from aiohttp import web
from letting_in import let_in, memory_store
from openai import AsyncOpenAI, NotFoundError
from routed import router, target

from gateway.handlers import models
from gateway.keys import METRICS, PRICES, ROUTER, SETTINGS
from gateway.metrics import Metrics
from gateway.middlewares import add_middlewares
from gateway.money.price_book import PriceBook
from gateway.pricing import Price

AUTHORIZED = {"Authorization": "Bearer tg-test"}


@pytest.fixture
async def client(aiohttp_client):
    app = web.Application()
    app[SETTINGS] = SimpleNamespace(
        providers={"openai": object(), "local": object()},
    )
    prices = dict.fromkeys(
        ["openai:gpt-4o-mini", "local:org/fake:7b", "gone:model"], Price(Decimal(1), Decimal(2))
    )
    app[PRICES] = PriceBook(prices, memory_store(), refresh_s=1, patience_s=1)
    app[METRICS] = Metrics()
    app[ROUTER] = router(targets=(target("local:org/fake:7b"),), providers={"openai", "local"})
    let_in(app)
    add_middlewares(app)
    app.add_routes(
        [web.get("/v1/models", models.list_models), web.get("/v1/models/{id:.+}", models.get_model)]
    )
    return await aiohttp_client(app, headers=AUTHORIZED)


async def test_the_list_holds_the_names_and_the_priced_models_of_configured_providers(client):
    response = await client.get("/v1/models")

    assert await response.json() == {
        "object": "list",
        "data": [
            {"id": "fast", "object": "model", "created": 0, "owned_by": "tallygate"},
            {"id": "local:org/fake:7b", "object": "model", "created": 0, "owned_by": "local"},
            {"id": "openai:gpt-4o-mini", "object": "model", "created": 0, "owned_by": "openai"},
        ],
    }


@pytest.mark.parametrize(
    ("path", "id"),
    [
        ("fast", "fast"),
        ("openai:gpt-4o-mini", "openai:gpt-4o-mini"),
        ("openai/gpt-4o-mini", "openai:gpt-4o-mini"),
        ("local:org/fake:7b", "local:org/fake:7b"),
        ("local/org/fake:7b", "local:org/fake:7b"),
    ],
)
async def test_a_model_is_found_under_every_name_that_a_call_may_use(client, path, id):
    response = await client.get(f"/v1/models/{path}")

    assert (response.status, (await response.json())["id"]) == (200, id)


@pytest.mark.parametrize("path", ["gpt-4o-mini", "openai:gpt-5", "gone:model", "x"])
async def test_a_model_that_is_not_listed_is_not_found(client, path):
    response = await client.get(f"/v1/models/{path}")

    error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (404, "model_not_found", "model")


async def test_models_need_a_key(client):
    for path in ("/v1/models", "/v1/models/openai:gpt-4o-mini"):
        assert (await client.get(path, headers={"Authorization": "Bearer nope"})).status == 401


async def test_the_official_client_can_list_and_retrieve(client):
    base_url = str(client.make_url("/v1"))
    async with AsyncOpenAI(api_key="tg-test", base_url=base_url, max_retries=0) as openai:
        listed = [model.id async for model in openai.models.list()]
        model = await openai.models.retrieve("local:org/fake:7b")

        with pytest.raises(NotFoundError) as refusal:
            await openai.models.retrieve("local:nothing")

    assert listed == ["fast", "local:org/fake:7b", "openai:gpt-4o-mini"]
    assert model.owned_by == "local"
    assert refusal.value.code == "model_not_found"
