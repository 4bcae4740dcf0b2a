"""What users have spent is the sum of their rows, to the nano-dollar."""

from __future__ import annotations

import asyncio
import random

import pytest
from spending import COST_NANO, NOW, chat, cost_of, soon, spend

from backends import Budget, User
from gateway.commands.budgets import rebuilt
from gateway.keys import SINK, STORE


async def any_call(gateway, rng, index):
    stream = rng.random() < 0.5
    trouble = rng.choice([{}, {}, {}, {"status": 500}, {"cut_after": 1}, {"no_usage": True}])
    model = rng.choice(["fake:m", "fake:m", "fake:m", "fake:unpriced", "nobody:m"])
    members = {"model": model, "stream": stream, "max_tokens": rng.randrange(40), "fake": trouble}
    caller = await gateway.call(gateway.body(user=f"u{index % 3}", **members))
    if rng.random() < 0.8:
        await caller.head()
        await soon(caller.reader.readuntil(b"\r\n0\r\n\r\n" if caller.is_chunked else b"}"))
    caller.writer.transport.abort()


@pytest.mark.parametrize("seed", range(2))
async def test_what_users_spent_is_the_sum_of_their_rows_to_the_nano_dollar(budgeted, looking, seed):
    gateway = await budgeted(streams={"after_disconnect_s": 0.05, "max_pumps": 3})
    gateway.unheard = None
    store, rng = gateway.app[STORE], random.Random(seed)
    for index, limit_nano in enumerate((100_000, 1_000_000, 10**12)):
        await store.add(Budget(id=f"b{index}", limit_nano=limit_nano, created_at=NOW))
        await store.add(User(id=f"u{index}", budget_id=f"b{index}", created_at=NOW))
    for _ in range(10):
        await asyncio.gather(*[any_call(gateway, rng, index) for index in range(15)])
    rows = await gateway.rows()

    lines = [line async for line in rebuilt(store, gateway.app[SINK], "check")]

    assert [(line.user_id, line.outcome) for line in lines] == [
        (user, "equal") for user in ("u", "u0", "u1", "u2")
    ]
    sums = {line.user_id: line.rows_nano for line in lines}
    assert sum(sums.values()) == cost_of(rows) > 0
    assert {row.status for row in rows} >= {"success", "error", "rejected"}
    assert sums["u0"] <= 100_000


async def test_what_users_spent_is_set_to_the_sum_of_their_rows(budgeted):
    gateway = await budgeted()
    assert (await chat(gateway)).status == 200
    await gateway.settled()
    await spend(gateway, 5)
    store, sink = gateway.app[STORE], gateway.app[SINK]

    async def outcomes(mode):
        return [(line.spent_nano, line.rows_nano, line.outcome) async for line in rebuilt(store, sink, mode)]

    assert await outcomes("check") == [(5, COST_NANO, "differs")]
    assert await outcomes("raise") == [(5, COST_NANO, "done")]
    assert await outcomes("raise") == [(COST_NANO, COST_NANO, "equal")]


async def test_money_of_rows_that_are_missing_is_not_given_back_unless_that_is_asked_for(budgeted):
    gateway = await budgeted()
    assert (await chat(gateway)).status == 200
    await gateway.settled()
    await spend(gateway, COST_NANO + 5)
    store, sink = gateway.app[STORE], gateway.app[SINK]

    async def outcome(mode):
        (line,) = [line async for line in rebuilt(store, sink, mode)]
        return line.outcome

    assert await outcome("raise") == "rows missing"
    assert await outcome("check") == "differs"
    assert await outcome("set") == "done"
    assert await outcome("check") == "equal"


async def test_an_account_with_calls_under_way_is_not_rebuilt(budgeted):
    gateway = await budgeted()
    assert (await chat(gateway)).status == 200
    await gateway.settled()
    await spend(gateway, 5)
    stage = gateway.stage
    stage.plain(stage.completion("swordfish", 3, 4), stage.go)
    stage.arrived.clear()
    call = asyncio.ensure_future(chat(gateway))
    await soon(stage.arrived.wait())

    (line,) = [line async for line in rebuilt(gateway.app[STORE], gateway.app[SINK], "set")]

    assert (line.outcome, line.spent_nano) == ("skipped", 5)
    stage.go.set()
    await soon(call)
