"""The store in PostgreSQL: many calls at once, from several stores."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from servers.postgres_database import OwnSchema
from servers.postgres_store import (
    opened,
    until_waiting,
    url_of,
)

from backends import StoreConflict
from backends.store.contract import BudgetStrategy
from backends.store.records import Budget, User
from backends.testing.cases.base import bounded
from backends.testing.store.base import account_of, add_spender, budget_id, found
from backends.testing.store.examples import make_api_key, make_budget, make_claim, make_user
from backends.testing.store.examples import settled as settlement

pytestmark = pytest.mark.timeout(300)  # the first run on a machine installs the server

both = pytest.mark.parametrize("strategy", ["for_update", "cas"])


async def test_stores_of_both_strategies_together_hold_what_there_is_room_for(postgres: OwnSchema) -> None:
    claims = [make_claim(10) for _ in range(50)]

    async with opened(postgres, "cas") as one, opened(postgres, "for_update") as other:
        await add_spender(one, 100)
        verdicts = await asyncio.gather(
            *((one, other)[number % 2].reserve(claim) for number, claim in enumerate(claims))
        )

        assert sorted(verdicts) == ["held"] * 10 + ["over_budget"] * 40
        assert await account_of(one) == (0, 100)


@both
async def test_two_stores_on_a_serializable_database_hold_what_there_is_room_for(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    url = f"{url_of(postgres)}&options=-cdefault_transaction_isolation%3Dserializable"

    async with opened(postgres, strategy, url=url) as one, opened(postgres, strategy, url=url) as other:
        await add_spender(one, 100)
        verdicts = await asyncio.gather(*(store.reserve(make_claim(10)) for store in [one, other] * 25))

        assert sorted(verdicts) == ["held"] * 10 + ["over_budget"] * 40


async def test_a_user_whose_budget_is_being_changed_waits_and_has_the_new_limit(postgres: OwnSchema) -> None:
    async with opened(postgres) as store:
        await store.add(make_budget("budget-1", 100))
        async with postgres.connected() as connection, connection.transaction():
            await connection.execute("UPDATE gateway_budgets SET limit_nano = 7")
            adding = asyncio.ensure_future(store.add(make_user(budget_id="budget-1")))
            await until_waiting(postgres)
        await bounded(adding)

        assert (await found(store, User, "user-1")).limit_nano == 7


async def test_a_budget_that_a_user_gets_at_this_moment_is_not_removed(postgres: OwnSchema) -> None:
    async with opened(postgres) as store:
        await store.add(make_budget("budget-1"))
        await store.add(make_user())
        async with postgres.connected() as connection, connection.transaction():
            await connection.execute("SELECT 1 FROM gateway_budgets FOR SHARE")
            await connection.execute("UPDATE gateway_users SET budget_id = 'budget-1'")
            removing = asyncio.ensure_future(store.remove(Budget, "budget-1"))
            await until_waiting(postgres)
        with pytest.raises(StoreConflict):
            await bounded(removing)

        assert await store.get(Budget, "budget-1")


async def test_nobody_waits_for_each_other_whatever_is_done_at_the_same_time(postgres: OwnSchema) -> None:
    """No call ends in a deadlock, with locks taken on the same users, claims and keys from all sides."""
    ids = [f"user {number}" for number in range(6)]
    keys = [make_api_key(user_id=id) for id in ids]

    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(postgres, each)) for each in ("cas", "for_update")]
        one, other = stores
        budget = budget_id(await add_spender(one, 10**9, id=ids[0]))
        for id in ids[1:]:
            await one.add(make_user(id, budget_id=budget))
        for key in keys:
            await one.add(key)
        for number in range(8):
            claims = [make_claim(1, id) for id in ids * 3]
            await asyncio.gather(*(each.reserve(claim) for claim in claims for each in stores))
            batch = [settlement(claim, 2) for claim in claims]
            late = max(claim.expires_at for claim in claims)
            used = {key.id: late + timedelta(seconds=number) for key in keys}
            await asyncio.gather(
                one.settle(batch),
                other.settle(batch[::-1]),
                one.sweep(late),
                other.sweep(late),
                one.update(Budget, budget, {"limit_nano": 10**9 + number}),
                other.update(User, ids[-1], {"budget_id": budget}),
                one.touch_keys(used),
                other.touch_keys(dict(reversed(used.items()))),
                *(store.reserve(make_claim(1, id)) for id in ids[::-1] for store in stores),
            )

        users = await one.list(User)
        assert {user.limit_nano for user in users} == {10**9 + 7}
        [row] = await postgres.fetch(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        assert row["deadlocks"] == 0
