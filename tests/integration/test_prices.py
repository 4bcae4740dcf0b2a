"""What a call costs at its own time, and what becomes of one that nobody can price."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal

from letting_in import memory_store
from spending import COST_NANO, NOW, chat, code_of, spend, spent

from backends import PriceEntry, StoreUnavailable
from gateway import app as composition
from gateway.keys import PRICES, STORE


async def test_a_model_without_a_price_is_not_served_if_it_is_not_to_be(budgeted):
    gateway = await budgeted(unpriced="refuse")

    response = await gateway.chat(model="stage:other")

    error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (402, "model_not_priced", "model")
    row = await gateway.row()
    assert str(row.id) == response.headers["x-usage-id"]
    assert (row.status, row.end_reason, row.status_code) == ("rejected", "rejected", 402)
    assert gateway.provider_calls == 0


async def test_a_model_without_a_price_costs_a_budget_nothing_while_there_is_any_left(budgeted):
    gateway = await budgeted(10)
    assert (await chat(gateway, model="stage:other")).status == 200
    assert await spent(gateway) == 0
    await spend(gateway, 10)

    response = await chat(gateway, model="stage:other")

    assert (response.status, await code_of(response)) == (403, "budget_exceeded")


async def test_a_call_costs_what_the_store_says_at_its_own_time(budgeted):
    gateway = await budgeted()
    prices = {"input_per_million": Decimal(2), "output_per_million": Decimal(20)}
    for name, at in (("now", NOW - timedelta(hours=1)), ("later", NOW + timedelta(hours=1))):
        entry = PriceEntry(id=name, model="stage:m", effective_at=at, created_at=NOW, **prices)
        await gateway.app[STORE].add(entry)
        prices = {name: 10 * price for name, price in prices.items()}
    await gateway.app[PRICES].refresh()

    assert (await chat(gateway)).status == 200

    assert (await gateway.row()).cost == Decimal("0.000086000")
    assert await spent(gateway) == 2 * COST_NANO


async def test_until_the_prices_have_been_read_no_call_is_made(gateways, monkeypatch):
    class Silent(type(memory_store())):
        is_down = True

        async def list(self, kind, **question):
            if self.is_down and kind is PriceEntry:
                raise StoreUnavailable("down")
            return await super().list(kind, **question)

    store = Silent()

    @asynccontextmanager
    async def opened(settings):
        yield store

    monkeypatch.setattr(composition, "opened_store", opened)
    gateway = await gateways(store={"url": "memory:", "timeout_s": 0.05})
    gateway.stage.plain(gateway.stage.completion("swordfish", 3, 4))

    response = await gateway.chat()

    assert (response.status, await code_of(response)) == (503, "store_unavailable")
    assert (gateway.provider_calls, await gateway.rows()) == (0, [])
    store.is_down = False
    await gateway.app[PRICES].refresh()
    assert (await gateway.chat()).status == 200
