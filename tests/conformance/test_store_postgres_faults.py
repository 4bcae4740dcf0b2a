"""The store in PostgreSQL: a server that is gone, busy or frozen, and a wire that fails."""

from __future__ import annotations

import asyncio

import pytest
from servers.base import need_ours
from servers.postgres_database import OwnSchema
from servers.postgres_store import (
    SHORT_S,
    TERMINATE_WAITING,
    answer_of,
    calls_of,
    locked_users,
    opened,
    trouble,
    until_waiting,
)

from backends import StoreUnavailable
from backends.store.contract import BudgetStrategy
from backends.store.records import User
from backends.testing.cases.base import PATIENCE_S, bounded, settled
from backends.testing.store.base import account_of, add_spender
from backends.testing.store.examples import make_claim
from backends.testing.store.examples import settled as settlement

pytestmark = pytest.mark.timeout(300)  # the first run on a machine installs the server

both = pytest.mark.parametrize("strategy", ["for_update", "cas"])


# --- time


@both
async def test_an_account_that_is_locked_is_given_up_in_time_and_held_once_when_asked_again(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    claim = make_claim(10)

    async with (
        opened(postgres, strategy) as patient,
        opened(postgres, strategy, timeout_s=SHORT_S) as store,
    ):
        await add_spender(patient)
        async with locked_users(postgres):
            await trouble(store.reserve(claim))
            assert store.pool()["in_use"] == 0

        assert await answer_of(lambda: store.reserve(claim)) == "held"
        assert await account_of(patient) == (0, 10)


async def test_who_gets_no_connection_in_time_is_told_so(postgres: OwnSchema) -> None:
    async with opened(postgres, max_connections=2) as patient:
        await add_spender(patient)
        async with opened(postgres, max_connections=1, timeout_s=SHORT_S) as store:
            await answer_of(store.ping)
            async with store._connections.session():
                for error in await asyncio.gather(*map(trouble, calls_of(store))):
                    assert error.code == "timeout"
                assert store.pool() == {"in_use": 1, "idle": 0}

            assert await answer_of(lambda: store.get(User, "user-1"))


async def test_a_store_makes_no_more_connections_than_it_may(postgres: OwnSchema) -> None:
    async with opened(postgres, max_connections=3) as store:
        await store.ping()
        await asyncio.gather(*(store.ping() for _ in range(30)))

        assert len(await postgres.backends(3)) == 3
        assert store.pool() == {"in_use": 0, "idle": 3}


@both
async def test_a_cancelled_call_gives_its_connection_back(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    async with opened(postgres, strategy, max_connections=1) as store:
        await add_spender(store)
        claim = make_claim(10)
        async with locked_users(postgres):
            for call in (store.reserve(claim), store.update(User, "user-1", {"alias": "x"})):
                task = asyncio.ensure_future(call)
                await until_waiting(postgres)
                task.cancel()
                await settled(task)
                assert task.cancelled()
                assert store.pool() == {"in_use": 0, "idle": 0}
                await postgres.run(TERMINATE_WAITING)

        assert await bounded(store.reserve(claim)) == "held"
        assert await account_of(store) == (0, 10)


# --- the wire


@pytest.mark.parametrize("mode", ["black_hole", "reset", "refuse"])
async def test_a_wire_that_fails_is_given_up_in_time(postgres: OwnSchema, mode: str) -> None:
    async with opened(postgres) as owner:
        await add_spender(owner)
    async with (
        postgres.proxy() as proxy,
        opened(postgres, port=proxy.port, timeout_s=SHORT_S) as store,
    ):
        await answer_of(store.ping)
        getattr(proxy, mode)()
        await asyncio.gather(*map(trouble, calls_of(store)))
        assert store.pool()["in_use"] == 0
        await proxy.heal()

        assert await answer_of(lambda: store.reserve(make_claim(1))) == "held"


@both
async def test_a_claim_whose_answer_was_lost_is_held_once(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    claim = make_claim(10)

    async with postgres.proxy() as proxy, opened(postgres, strategy, port=proxy.port) as store:
        await add_spender(store)
        proxy.drop_reply(reply=b"INSERT 0 1" if strategy == "cas" else b"COMMIT")
        await trouble(store.reserve(claim))

        assert proxy.strikes == 1
        assert await account_of(store) == (0, 10)
        assert await store.reserve(claim) == "held"
        assert await account_of(store) == (0, 10)


async def test_a_settlement_whose_answer_was_lost_counts_once(postgres: OwnSchema) -> None:
    claim = make_claim(10)

    async with postgres.proxy() as proxy, opened(postgres, port=proxy.port) as store:
        await add_spender(store)
        await store.reserve(claim)
        proxy.drop_reply(reply=b"COMMIT")
        await trouble(store.settle([settlement(claim, 7)]))
        await store.settle([settlement(claim, 7)])

        assert await account_of(store) == (7, 0)


@both
async def test_a_claim_that_is_cut_anywhere_is_held_wholly_or_not_at_all(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    async with postgres.proxy() as proxy, opened(postgres, strategy, port=proxy.port) as store:
        await add_spender(store)
        for count in (1, 40, 80, 160, 320):
            claim = make_claim(1)
            await store.reserve(make_claim(1))
            before = await account_of(store)
            proxy.cut_after(count)
            with_luck = await asyncio.gather(store.reserve(claim), return_exceptions=True)
            assert isinstance(with_luck[0], StoreUnavailable) or with_luck == ["held"]
            assert await answer_of(lambda claim=claim: store.reserve(claim)) == "held"  # type: ignore[misc]
            assert await account_of(store) == (0, before[1] + 1)


# --- the server's process


@both
async def test_a_server_that_was_killed_is_trouble_until_it_is_back(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    need_ours(postgres.server)
    first, second = make_claim(10), make_claim(20)

    async with opened(postgres, strategy) as store:
        await add_spender(store)
        await asyncio.gather(*(store.ping() for _ in range(5)))
        await store.reserve(first)
        await asyncio.to_thread(postgres.server.kill)
        for call in calls_of(store):
            await trouble(call)
        assert store.pool()["in_use"] == 0
        await postgres.restart()

        assert await store.reserve(second) == "held"
        assert await account_of(store) == (0, 30)
        await store.settle([settlement(first), settlement(second)])
        assert await account_of(store) == (30, 0)


async def test_a_frozen_server_delays_neither_an_answer_nor_the_end(postgres: OwnSchema) -> None:
    need_ours(postgres.server)

    async with opened(postgres) as owner:
        await add_spender(owner)
    try:
        async with asyncio.timeout(PATIENCE_S), opened(postgres, timeout_s=SHORT_S) as store:
            await asyncio.gather(*(answer_of(store.ping) for _ in range(3)))
            postgres.server.freeze()
            await asyncio.gather(*map(trouble, calls_of(store)))
            assert store.pool()["in_use"] == 0
    finally:
        postgres.server.thaw()
