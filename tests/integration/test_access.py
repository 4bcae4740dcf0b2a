"""Keys over real HTTP: who is let in, whose their calls are, and what a store that is down costs."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

import pytest
from letting_in import ANNS_KEY, LONG_AGO, CountingStore, Hand, make_api_key, make_user, memory_store

from backends import ApiKey, PriceEntry, User
from gateway import app as composition
from gateway.access import Access, opening
from gateway.keys import ACCESS, PRICES

CHAT = "/v1/chat/completions"
ANN = {"Authorization": f"Bearer {ANNS_KEY}"}


@pytest.fixture
def store(monkeypatch):
    """What the gateway of the test finds in the place of its store."""
    store = CountingStore(memory_store())

    @asynccontextmanager
    async def opened(settings):
        yield store

    monkeypatch.setattr(composition, "opened_store", opened)
    return store


@pytest.fixture
def hand(monkeypatch):
    """The clock by which answers of the store age."""
    hand = Hand()
    monkeypatch.setattr(opening, "Access", partial(Access, clock=hand))
    return hand


@pytest.fixture
async def ann(store):
    """Ann, who has a key."""
    await store.add(make_user())
    await store.add(key := make_api_key())
    return key


async def chat(gateway, headers=ANN, path=CHAT, **members):
    if path == CHAT:
        gateway.stage.plain(gateway.stage.completion("swordfish", 3, 4))
        return await gateway.post(gateway.body(**members), path, **headers)
    return await gateway.client.get(path, headers=headers)


async def refused(response):
    return response.status, (await response.json())["error"]["code"]


async def test_a_call_is_filed_under_its_key_and_its_user(ann, gateways):
    gateway = await gateways()

    response = await chat(gateway)

    row = await gateway.row()
    assert response.status == 200
    assert (row.api_key_id, row.user_id) == (ann.id, "ann")


async def test_a_call_of_the_master_is_filed_under_whom_it_names(ann, gateways):
    gateway = await gateways()

    await chat(gateway, {})
    await chat(gateway, {}, user="ann")

    first, second = await gateway.rows()
    assert (first.api_key_id, first.user_id) == (None, None)
    assert (second.api_key_id, second.user_id) == (None, "ann")


@pytest.mark.parametrize(
    ("headers", "members", "answer"),
    [
        (ANN, {"user": "bob"}, (403, "user_mismatch")),
        (ANN, {"user": "nobody"}, (403, "user_mismatch")),
        ({}, {"user": "nobody"}, (404, "user_not_found")),
        ({}, {"user": "bob"}, (403, "user_blocked")),
        (ANN, {"model": "fake:m"}, (403, "model_not_allowed")),
        (ANN, {"model": "fake/m"}, (403, "model_not_allowed")),
        ({"Authorization": "Bearer tg-of-nobody"}, {}, (401, "invalid_api_key")),
    ],
)
async def test_whoever_may_not_call_costs_nobody_a_row_or_a_call(store, gateways, headers, members, answer):
    await store.add(make_user())
    await store.add(make_user("bob", blocked=True))
    await store.add(make_api_key(allowed_models=("stage:m",)))
    gateway = await gateways()

    response = await chat(gateway, headers, **members)

    assert await refused(response) == answer
    assert await gateway.rows() == [] and gateway.provider_calls == 0


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/usage/summary", "/v1/log-writer"])
async def test_a_users_key_does_not_open_what_is_the_masters(ann, gateways, path):
    gateway = await gateways()

    assert await refused(await chat(gateway, path=path)) == (403, "master_key_required")


async def test_the_models_are_those_that_the_key_opens(store, gateways):
    await store.add(make_user())
    await store.add(make_api_key(allowed_models=("stage:*",)))
    gateway = await gateways()

    listed = await (await chat(gateway, path="/v1/models")).json()

    assert [each["id"] for each in listed["data"]] == ["stage:m"]
    assert (await chat(gateway, path="/v1/models/stage/m")).status == 200
    assert await refused(await chat(gateway, path="/v1/models/fake:m")) == (404, "model_not_found")
    assert (await chat(gateway, {"Authorization": "Bearer tg-test"}, "/v1/models/fake:m")).status == 200


async def test_a_model_with_a_price_in_the_store_is_listed_from_its_time_on(store, gateways):
    price = PriceEntry(
        id="p",
        model="fake:new",
        effective_at=LONG_AGO,
        input_per_million=Decimal(1),
        output_per_million=Decimal(1),
        created_at=LONG_AGO,
    )
    await store.add(price)
    await store.add(replace(price, id="q", model="fake:later", effective_at=datetime(9999, 1, 1, tzinfo=UTC)))
    gateway = await gateways()
    await gateway.app[PRICES].refresh()

    listed = await (await chat(gateway, {"x-api-key": "tg-test"}, "/v1/models")).json()

    assert {each["id"] for each in listed["data"]} == {"stage:m", "fake:m", "fake:new"}


async def test_a_key_that_is_remembered_costs_no_question(ann, store, gateways, hand):
    gateway = await gateways()
    await chat(gateway)
    before = store.asked["find_key"] + store.asked["get"]

    for _ in range(10):
        assert (await chat(gateway)).status == 200

    assert before == store.asked["find_key"] + store.asked["get"] == 1


async def test_fifty_first_calls_of_a_key_ask_once(ann, store, gateways):
    gateway = await gateways()
    store.gate.clear()
    calls = [asyncio.ensure_future(chat(gateway)) for _ in range(50)]
    await store.arrived.wait()

    store.gate.set()

    assert {each.status for each in await asyncio.gather(*calls)} == {200}
    assert store.asked["find_key"] == 1


async def test_a_revocation_made_elsewhere_is_seen_in_time(ann, store, gateways, hand):
    gateway = await gateways()
    assert (await chat(gateway)).status == 200
    await store.update(ApiKey, ann.id, {"revoked_at": LONG_AGO})

    hand.now = 4.9
    assert (await chat(gateway)).status == 200
    hand.now = 5.0

    assert await refused(await chat(gateway)) == (401, "revoked_api_key")


async def test_a_block_made_here_is_seen_at_once(ann, store, gateways, hand):
    gateway = await gateways()
    assert (await chat(gateway)).status == 200

    await store.update(User, "ann", {"blocked": True})
    gateway.app[ACCESS].forget_user("ann")

    assert await refused(await chat(gateway)) == (403, "user_blocked")


async def test_a_store_that_is_down_is_a_503_for_keys_and_nothing_for_the_master(ann, store, gateways):
    gateway = await gateways()
    store.is_down = True

    response = await chat(gateway)

    assert await refused(response) == (503, "store_unavailable")
    assert response.headers["Retry-After"] == "1"
    assert (await chat(gateway, {})).status == 200
    assert await refused(await chat(gateway, {}, user="ann")) == (503, "store_unavailable")
    store.is_down = False
    assert (await chat(gateway)).status == 200
    assert len(await gateway.rows()) == 2


async def test_a_key_that_is_remembered_outlives_an_outage(ann, store, gateways, hand):
    gateway = await gateways()
    await chat(gateway)

    store.is_down = True

    assert (await chat(gateway)).status == 200
    hand.now = 5.0
    assert await refused(await chat(gateway)) == (503, "store_unavailable")


async def test_readiness_says_when_the_next_key_would_be_refused_and_when_no_longer(ann, store, gateways):
    gateway = await gateways()
    health = gateway.app[ACCESS].health
    store.is_down = True
    await chat(gateway)
    ready = await chat(gateway, path="/health/readiness")
    assert (ready.status, (await ready.json())["degraded"]) == (200, ["store_down"])

    await health.look()
    answer = await chat(gateway, path="/health/readiness")

    assert (answer.status, (await answer.json())["reason"]) == (503, "store_unavailable")
    store.is_down = False
    await health.look()
    assert (await chat(gateway, path="/health/readiness")).status == 200


@pytest.mark.parametrize("master_key", [None, "tg-swordfish"])
async def test_a_gateway_that_starts_beside_a_store_that_is_down_is_not_ready(store, gateways, master_key):
    store.is_down = True
    gateway = await gateways(master_key=master_key)
    await store.was_asked("ping", 1)
    await asyncio.sleep(0)

    answer = await chat(gateway, path="/health/readiness")

    assert (answer.status, (await answer.json())["reason"]) == (503, "store_unavailable")
    store.is_down = False
    await gateway.app[ACCESS].health.look()
    assert (await chat(gateway, path="/health/readiness")).status == 200


async def test_metrics_show_the_connections_to_the_store(gateway):
    assert gateway.metric("gateway_store_connections", state="in_use") == 0
    assert gateway.metric("gateway_store_connections", state="idle") == 0


async def test_the_times_of_use_are_written_when_the_gateway_stops(ann, store, gateways):
    gateway = await gateways()
    await chat(gateway)

    await gateway.runner.cleanup()

    assert (await store.get(ApiKey, ann.id)).last_used_at > LONG_AGO


async def test_a_gateway_without_a_master_key_makes_one_and_shows_it(store, gateways, capsys):
    gateway = await gateways(master_key=None)
    await store.was_asked("keep_master_key", 1)

    secret = capsys.readouterr().out.split()[-1]

    response = await chat(gateway, {"Authorization": f"Bearer {secret}"}, "/v1/log-writer")
    assert response.status == 200
    assert await refused(await chat(gateway, {}, "/v1/log-writer")) == (401, "missing_api_key")
