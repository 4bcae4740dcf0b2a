"""The store in PostgreSQL: a server that is gone, busy, frozen or not as it has to be; many calls at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr
from servers.base import free_port, need_ours
from servers.postgres_database import OwnSchema

from backends import StoreConflict, StoreOptions, StoreUnavailable
from backends.store.contract import BudgetStrategy
from backends.store.postgres import PostgresStore
from backends.store.records import ApiKey, Budget, PriceEntry, User
from backends.testing.cases.base import PATIENCE_S, bounded, settled
from backends.testing.store.base import account_of, add_spender, budget_id, found
from backends.testing.store.examples import hash_of, make_api_key, make_budget, make_claim, make_user
from backends.testing.store.examples import settled as settlement

pytestmark = pytest.mark.timeout(300)  # the first run on a machine installs the server

SHORT_S = 0.3
SECRET = "opensesame"
T = TypeVar("T")

both = pytest.mark.parametrize("strategy", ["for_update", "cas"])


# --- opening


async def test_opening_asks_no_server(postgres: OwnSchema) -> None:
    async with _opened(postgres, port=free_port()) as store:
        assert store.pool() == {"in_use": 0, "idle": 0}


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@{SECRET}@host/db",
        f"postgresql://user:{SECRET}@host:99999/db",
        f"postgres://user:{SECRET}@host:port/db",
        f"postgresql://user:{SECRET}@host/db?sslmode={SECRET}",
    ],
)
async def test_a_postgres_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        async with PostgresStore.open(StoreOptions(url=SecretStr(url))):
            pass

    assert SECRET not in str(caught.value)


# --- what a person has to mend


async def test_a_wrong_password_is_trouble_and_not_told(postgres: OwnSchema) -> None:
    dsn = postgres.server.dsn_of("tallygate", SECRET)

    async with _opened(postgres, url=dsn) as store:
        for call in _calls(store):
            error = await _trouble(call)
            assert error.code == "28P01"
            assert SECRET not in _everything(error)


async def test_a_server_that_is_not_there_is_trouble_and_tells_no_password(postgres: OwnSchema) -> None:
    dsn = postgres.server.dsn_of("tallygate", SECRET, port=free_port())

    async with _opened(postgres, url=dsn) as store:
        for call in _calls(store):
            assert SECRET not in _everything(await _trouble(call))
        assert store.pool()["in_use"] == 0


async def test_without_leave_to_migrate_the_tables_are_waited_for(postgres: OwnSchema) -> None:
    async with _opened(postgres, migrate=False) as store, _opened(postgres) as owner:
        error = await _trouble(store.get(User, "user-1"))
        assert (error.code, "tallygate migrate" in error.message) == ("schema_missing", True)
        assert await postgres.tables() == []
        await owner.migrate()

        assert await store.get(User, "user-1") is None


async def test_tables_that_are_gone_are_made_again(postgres: OwnSchema) -> None:
    async with _opened(postgres) as store:
        await store.add(make_user())
        await postgres.run("DROP TABLE gateway_users, gateway_meta, gateway_budgets, gateway_keys")
        await postgres.run("DROP TABLE gateway_prices, gateway_claims")
        assert (await _trouble(store.get(User, "user-1"))).code == "42P01"

        assert await store.get(User, "user-1") is None


@pytest.mark.parametrize("migrate", [True, False])
async def test_a_newer_schema_is_left_alone(postgres: OwnSchema, migrate: bool) -> None:
    async with _opened(postgres) as store:
        await store.add(make_user())
    await postgres.run("UPDATE gateway_meta SET value = '12' WHERE name = 'schema_version'")

    async with _opened(postgres, migrate=migrate) as store:
        for call in (store.get(User, "user-1"), store.ping(), store.migrate()):
            error = await _trouble(call)
            assert error.code == "schema_newer"
            assert error.message == "the store has schema 12, this program knows 1"
        await postgres.run("UPDATE gateway_meta SET value = '1' WHERE name = 'schema_version'")
        assert await found(store, User, "user-1")


@pytest.mark.parametrize("change", ["UPDATE gateway_meta SET value = 'x'", "DELETE FROM gateway_meta"])
async def test_a_schema_of_no_known_version_is_trouble(postgres: OwnSchema, change: str) -> None:
    async with _opened(postgres) as store:
        await store.migrate()
    await postgres.run(change)

    async with _opened(postgres) as store:
        for call in (store.get(User, "user-1"), store.ping(), store.migrate()):
            await _trouble(call)


async def test_ids_are_in_the_order_of_bytes_whatever_the_database_is_set_to(postgres: OwnSchema) -> None:
    async with _opened(postgres) as store:
        await store.migrate()
    sql = (
        "SELECT table_name FROM information_schema.columns"
        " WHERE table_schema = $1 AND column_name = 'id' AND collation_name = 'C' ORDER BY table_name"
    )

    assert [row["table_name"] for row in await postgres.fetch(sql, postgres.name)] == [
        "gateway_budgets",
        "gateway_keys",
        "gateway_prices",
        "gateway_users",
    ]


async def test_a_schema_that_somebody_else_is_making_is_waited_for_in_bounds(postgres: OwnSchema) -> None:
    sql = "SELECT pg_advisory_xact_lock(hashtext('tallygate'), hashtext('gateway_meta'))"

    async with _opened(postgres, timeout_s=SHORT_S) as store:
        async with postgres.connected() as connection, connection.transaction():
            await connection.execute(sql)
            for _ in range(2):
                await _trouble(store.migrate())
                await _trouble(store.get(User, "user-1"))

        await _answer_of(store.migrate)
        assert await _answer_of(lambda: store.get(User, "user-1")) is None


async def test_a_standby_is_trouble_and_reads_are_answered(postgres: OwnSchema) -> None:
    async with _opened(postgres) as store:
        await store.add(make_user())
    url = f"{_url(postgres)}&default_transaction_read_only=on"

    async with _opened(postgres, url=url) as standby:
        assert await found(standby, User, "user-1")
        for call in (standby.ping(), standby.add(make_user("2")), standby.reserve(make_claim(1))):
            assert (await _trouble(call)).code == "25006"


# --- texts that PostgreSQL does not keep


@pytest.mark.parametrize("text", ["a\0b", "\ud83d", "a\udfffb"])
async def test_a_text_that_the_database_does_not_keep_is_in_no_record(postgres: OwnSchema, text: str) -> None:
    async with _opened(postgres) as store:
        user = await add_spender(store)
        for kind in (ApiKey, User, Budget, PriceEntry):
            assert await store.get(kind, text) is None
            assert await store.update(kind, text, {"created_at": user.created_at}) is None
            assert await store.remove(kind, text) is False
        assert await store.find_key(text) is None
        assert await store.list(User, after=text) == await store.list(User, where={"alias": text}) == ()
        await store.touch_keys({text: user.created_at})
        claim = make_claim(1, text)
        assert await store.reserve(claim) == "user_missing"
        await store.settle([settlement(claim)])
        assert await store.rebuild_spent(replace(user, id=text), 0) is False


async def test_a_record_with_a_text_that_the_database_does_not_keep_is_refused(postgres: OwnSchema) -> None:
    text = "a\0b"

    async with _opened(postgres) as store:
        user = await add_spender(store)
        for call, field in (
            (store.add(make_user(text)), "id"),
            (store.add(make_user("other", alias=text)), "alias"),
            (store.add(make_user("other", budget_id=text)), "budget_id"),
            (store.update(User, "user-1", {"alias": text}), "alias"),
            (store.update(User, "user-1", {"budget_id": text}), "budget_id"),
            (store.update(Budget, budget_id(user), {"limit_nano": 7, "name": text}), "name"),
        ):
            with pytest.raises(StoreConflict) as caught:
                await bounded(call)
            assert caught.value.field == field

        assert await store.list(User) == [user]
        kept = await store.update(User, "user-1", {"metadata": {"text": text}})
        assert kept and kept.metadata == {"text": text}


# --- time


@both
async def test_an_account_that_is_locked_is_given_up_in_time_and_held_once_when_asked_again(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    claim = make_claim(10)

    async with (
        _opened(postgres, strategy) as patient,
        _opened(postgres, strategy, timeout_s=SHORT_S) as store,
    ):
        await add_spender(patient)
        async with _locked(postgres):
            await _trouble(store.reserve(claim))
            assert store.pool()["in_use"] == 0

        assert await _answer_of(lambda: store.reserve(claim)) == "held"
        assert await account_of(patient) == (0, 10)


async def test_who_gets_no_connection_in_time_is_told_so(postgres: OwnSchema) -> None:
    async with _opened(postgres, max_connections=2) as patient:
        await add_spender(patient)
        async with _opened(postgres, max_connections=1, timeout_s=SHORT_S) as store:
            await _answer_of(store.ping)
            async with store._connections.session():
                for error in await asyncio.gather(*map(_trouble, _calls(store))):
                    assert error.code == "timeout"
                assert store.pool() == {"in_use": 1, "idle": 0}

            assert await _answer_of(lambda: store.get(User, "user-1"))


async def test_a_store_makes_no_more_connections_than_it_may(postgres: OwnSchema) -> None:
    async with _opened(postgres, max_connections=3) as store:
        await store.ping()
        await asyncio.gather(*(store.ping() for _ in range(30)))

        assert len(await postgres.backends(3)) == 3
        assert store.pool() == {"in_use": 0, "idle": 3}


@both
async def test_a_cancelled_call_gives_its_connection_back(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    async with _opened(postgres, strategy, max_connections=1) as store:
        await add_spender(store)
        claim = make_claim(10)
        async with _locked(postgres):
            for call in (store.reserve(claim), store.update(User, "user-1", {"alias": "x"})):
                task = asyncio.ensure_future(call)
                await _until_waiting(postgres)
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
    async with _opened(postgres) as owner:
        await add_spender(owner)
    async with (
        postgres.proxy() as proxy,
        _opened(postgres, port=proxy.port, timeout_s=SHORT_S) as store,
    ):
        await _answer_of(store.ping)
        getattr(proxy, mode)()
        await asyncio.gather(*map(_trouble, _calls(store)))
        assert store.pool()["in_use"] == 0
        await proxy.heal()

        assert await _answer_of(lambda: store.reserve(make_claim(1))) == "held"


@both
async def test_a_claim_whose_answer_was_lost_is_held_once(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    claim = make_claim(10)

    async with postgres.proxy() as proxy, _opened(postgres, strategy, port=proxy.port) as store:
        await add_spender(store)
        proxy.drop_reply(reply=b"INSERT 0 1" if strategy == "cas" else b"COMMIT")
        await _trouble(store.reserve(claim))

        assert proxy.strikes == 1
        assert await account_of(store) == (0, 10)
        assert await store.reserve(claim) == "held"
        assert await account_of(store) == (0, 10)


async def test_a_settlement_whose_answer_was_lost_counts_once(postgres: OwnSchema) -> None:
    claim = make_claim(10)

    async with postgres.proxy() as proxy, _opened(postgres, port=proxy.port) as store:
        await add_spender(store)
        await store.reserve(claim)
        proxy.drop_reply(reply=b"COMMIT")
        await _trouble(store.settle([settlement(claim, 7)]))
        await store.settle([settlement(claim, 7)])

        assert await account_of(store) == (7, 0)


@both
async def test_a_claim_that_is_cut_anywhere_is_held_wholly_or_not_at_all(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    async with postgres.proxy() as proxy, _opened(postgres, strategy, port=proxy.port) as store:
        await add_spender(store)
        for count in (1, 40, 80, 160, 320):
            claim = make_claim(1)
            await store.reserve(make_claim(1))
            before = await account_of(store)
            proxy.cut_after(count)
            with_luck = await asyncio.gather(store.reserve(claim), return_exceptions=True)
            assert isinstance(with_luck[0], StoreUnavailable) or with_luck == ["held"]
            assert await _answer_of(lambda claim=claim: store.reserve(claim)) == "held"  # type: ignore[misc]
            assert await account_of(store) == (0, before[1] + 1)


# --- the server's process


@both
async def test_a_server_that_was_killed_is_trouble_until_it_is_back(
    postgres: OwnSchema, strategy: BudgetStrategy
) -> None:
    need_ours(postgres.server)
    first, second = make_claim(10), make_claim(20)

    async with _opened(postgres, strategy) as store:
        await add_spender(store)
        await asyncio.gather(*(store.ping() for _ in range(5)))
        await store.reserve(first)
        await asyncio.to_thread(postgres.server.kill)
        for call in _calls(store):
            await _trouble(call)
        assert store.pool()["in_use"] == 0
        await postgres.restart()

        assert await store.reserve(second) == "held"
        assert await account_of(store) == (0, 30)
        await store.settle([settlement(first), settlement(second)])
        assert await account_of(store) == (30, 0)


async def test_a_frozen_server_delays_neither_an_answer_nor_the_end(postgres: OwnSchema) -> None:
    need_ours(postgres.server)

    async with _opened(postgres) as owner:
        await add_spender(owner)
    try:
        async with asyncio.timeout(PATIENCE_S), _opened(postgres, timeout_s=SHORT_S) as store:
            await asyncio.gather(*(_answer_of(store.ping) for _ in range(3)))
            postgres.server.freeze()
            await asyncio.gather(*map(_trouble, _calls(store)))
            assert store.pool()["in_use"] == 0
    finally:
        postgres.server.thaw()


# --- many at once


async def test_stores_of_both_strategies_together_hold_what_there_is_room_for(postgres: OwnSchema) -> None:
    claims = [make_claim(10) for _ in range(50)]

    async with _opened(postgres, "cas") as one, _opened(postgres, "for_update") as other:
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
    url = f"{_url(postgres)}&options=-cdefault_transaction_isolation%3Dserializable"

    async with _opened(postgres, strategy, url=url) as one, _opened(postgres, strategy, url=url) as other:
        await add_spender(one, 100)
        verdicts = await asyncio.gather(*(store.reserve(make_claim(10)) for store in [one, other] * 25))

        assert sorted(verdicts) == ["held"] * 10 + ["over_budget"] * 40


async def test_a_user_whose_budget_is_being_changed_waits_and_has_the_new_limit(postgres: OwnSchema) -> None:
    async with _opened(postgres) as store:
        await store.add(make_budget("budget-1", 100))
        async with postgres.connected() as connection, connection.transaction():
            await connection.execute("UPDATE gateway_budgets SET limit_nano = 7")
            adding = asyncio.ensure_future(store.add(make_user(budget_id="budget-1")))
            await _until_waiting(postgres)
        await bounded(adding)

        assert (await found(store, User, "user-1")).limit_nano == 7


async def test_a_budget_that_a_user_gets_at_this_moment_is_not_removed(postgres: OwnSchema) -> None:
    async with _opened(postgres) as store:
        await store.add(make_budget("budget-1"))
        await store.add(make_user())
        async with postgres.connected() as connection, connection.transaction():
            await connection.execute("SELECT 1 FROM gateway_budgets FOR SHARE")
            await connection.execute("UPDATE gateway_users SET budget_id = 'budget-1'")
            removing = asyncio.ensure_future(store.remove(Budget, "budget-1"))
            await _until_waiting(postgres)
        with pytest.raises(StoreConflict):
            await bounded(removing)

        assert await store.get(Budget, "budget-1")


async def test_nobody_waits_for_each_other_whatever_is_done_at_the_same_time(postgres: OwnSchema) -> None:
    """No call ends in a deadlock, with locks taken on the same users, claims and keys from all sides."""
    ids = [f"user {number}" for number in range(6)]
    keys = [make_api_key(user_id=id) for id in ids]

    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(_opened(postgres, each)) for each in ("cas", "for_update")]
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


# --- helpers


def _url(postgres: OwnSchema, port: int | None = None) -> str:
    return f"{postgres.dsn(port)}?search_path={postgres.name}"


@asynccontextmanager
async def _opened(
    postgres: OwnSchema,
    strategy: BudgetStrategy = "cas",
    *,
    url: str | None = None,
    port: int | None = None,
    timeout_s: float = PATIENCE_S,
    **more: Any,
) -> AsyncIterator[PostgresStore]:
    """A store in this test's schema; at the end no connection is checked out."""
    address = SecretStr(url or _url(postgres, port))
    options = StoreOptions(url=address, timeout_s=timeout_s, **more)
    async with PostgresStore.open(options, strategy) as store:
        yield store
        assert store.pool()["in_use"] == 0


def _calls(store: PostgresStore) -> list[Awaitable[Any]]:
    """One of each kind, in its own words."""
    claim = make_claim(1)
    return [
        store.ping(),
        store.get(User, "user-1"),
        store.list(ApiKey),
        store.add(make_user("new")),
        store.update(User, "user-1", {"alias": "new"}),
        store.remove(Budget, "nowhere"),
        store.find_key(hash_of("secret")),
        store.touch_keys({"key": claim.made_at}),
        store.keep_master_key(hash_of("master")),
        store.reserve(claim),
        store.settle([settlement(claim)]),
        store.sweep(claim.made_at),
    ]


async def _trouble(call: Awaitable[Any]) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        await bounded(call)
    return caught.value


async def _answer_of(call: Callable[[], Awaitable[T]]) -> T:
    """With so little time for an answer, a loaded machine may need to be asked again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                pass


def _everything(error: BaseException | None) -> str:
    """The texts of an error and of all that led to it."""
    texts = []
    while error is not None:
        texts.append(f"{error} {error!r}")
        error = error.__cause__ or error.__context__
    return " ".join(texts)


TERMINATE_WAITING = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'tallygate' AND wait_event_type = 'Lock'"
)


@asynccontextmanager
async def _locked(postgres: OwnSchema) -> AsyncIterator[None]:
    """Somebody has the users meanwhile."""
    async with postgres.connected() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM gateway_users FOR UPDATE")
        yield


async def _until_waiting(postgres: OwnSchema) -> None:
    """Return once a statement of the store waits for a lock."""
    sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'tallygate' AND wait_event_type = 'Lock'"
    async with asyncio.timeout(PATIENCE_S):
        while not await postgres.fetch(sql):
            pass
