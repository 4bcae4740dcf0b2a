"""Gateways whose users have budgets, and what they say of the money."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from backends import Budget, User, nano_usd
from gateway import departure
from gateway.keys import STORE

LONG_S = 20.0
NOW = datetime.now(UTC)
COST_NANO = 3 * 1_000 + 4 * 10_000
"""Of a call with three tokens of prompt and four of completion."""
HELD_NANO = 4 * 1_000 + 4 * 10_000
"""For a call of these tests that asks for four tokens: its prompt is taken for four."""
NO_LIMITS = {}


async def soon(awaitable):
    async with asyncio.timeout(LONG_S):
        return await awaitable


@pytest.fixture
def looking(monkeypatch):
    """The gateway looks often, so that nobody waits for it to notice that a client left."""
    monkeypatch.setattr(departure, "LOOK_S", 0.005)


@pytest.fixture
def budgeted(gateways):
    """Makes gateways with a user ``u`` who may spend ``limit_nano``, and who has these rate limits."""

    async def start(limit_nano=10**9, sink="memory", strategy="cas", limits=NO_LIMITS, **settings):
        gateway = await gateways(sink, budget_strategy=strategy, **settings)
        await gateway.app[STORE].add(Budget(id="b", limit_nano=limit_nano, created_at=NOW))
        await gateway.app[STORE].add(User(id="u", budget_id="b", created_at=NOW, **limits))
        gateway.stage.plain(gateway.stage.completion("swordfish", 3, 4))
        return gateway

    return start


async def account(gateway):
    """Spent and held, once every call has been settled."""
    await gateway.settled()
    user = await gateway.app[STORE].get(User, "u")
    return user.spent_nano, user.reserved_nano


async def spent(gateway):
    spent_nano, held = await account(gateway)
    assert held == 0
    return spent_nano


async def spend(gateway, spent_nano):
    """Let the user have spent so much before."""
    user = await gateway.app[STORE].get(User, "u")
    assert await gateway.app[STORE].rebuild_spent(user, spent_nano)


def cost_of(rows):
    return sum(nano_usd(row.cost or Decimal(0)) for row in rows)


async def chat(gateway, **members):
    return await gateway.chat(**{"user": "u", "max_tokens": 4, **members})


async def code_of(response):
    return (await response.json())["error"]["code"]
