"""The store in PostgreSQL: addresses, credentials, tables and texts that are not as they have to be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import SecretStr
from servers.base import free_port
from servers.postgres_database import OwnSchema
from servers.postgres_store import (
    SHORT_S,
    answer_of,
    calls_of,
    everything,
    opened,
    trouble,
    url_of,
)

from backends import StoreConflict, StoreOptions
from backends.store.postgres import PostgresStore
from backends.store.records import ApiKey, Budget, PriceEntry, User
from backends.testing.cases.base import bounded
from backends.testing.store.base import add_spender, budget_id, found
from backends.testing.store.examples import make_claim, make_user
from backends.testing.store.examples import settled as settlement

pytestmark = pytest.mark.timeout(300)  # the first run on a machine installs the server

SECRET = "opensesame"


# --- opening


async def test_opening_asks_no_server(postgres: OwnSchema) -> None:
    async with opened(postgres, port=free_port()) as store:
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

    async with opened(postgres, url=dsn) as store:
        for call in calls_of(store):
            error = await trouble(call)
            assert error.code == "28P01"
            assert SECRET not in everything(error)


async def test_a_server_that_is_not_there_is_trouble_and_tells_no_password(postgres: OwnSchema) -> None:
    dsn = postgres.server.dsn_of("tallygate", SECRET, port=free_port())

    async with opened(postgres, url=dsn) as store:
        for call in calls_of(store):
            assert SECRET not in everything(await trouble(call))
        assert store.pool()["in_use"] == 0


async def test_without_leave_to_migrate_the_tables_are_waited_for(postgres: OwnSchema) -> None:
    async with opened(postgres, migrate=False) as store, opened(postgres) as owner:
        error = await trouble(store.get(User, "user-1"))
        assert (error.code, "tallygate migrate" in error.message) == ("schema_missing", True)
        assert await postgres.tables() == []
        await owner.migrate()

        assert await store.get(User, "user-1") is None


async def test_tables_that_are_gone_are_made_again(postgres: OwnSchema) -> None:
    async with opened(postgres) as store:
        await store.add(make_user())
        await postgres.run("DROP TABLE gateway_users, gateway_meta, gateway_budgets, gateway_keys")
        await postgres.run("DROP TABLE gateway_prices, gateway_claims")
        assert (await trouble(store.get(User, "user-1"))).code == "42P01"

        assert await store.get(User, "user-1") is None


@pytest.mark.parametrize("migrate", [True, False])
async def test_a_newer_schema_is_left_alone(postgres: OwnSchema, migrate: bool) -> None:
    async with opened(postgres) as store:
        await store.add(make_user())
    await postgres.run("UPDATE gateway_meta SET value = '12' WHERE name = 'schema_version'")

    async with opened(postgres, migrate=migrate) as store:
        for call in (store.get(User, "user-1"), store.ping(), store.migrate()):
            error = await trouble(call)
            assert error.code == "schema_newer"
            assert error.message == "the store has schema 12, this program knows 1"
        await postgres.run("UPDATE gateway_meta SET value = '1' WHERE name = 'schema_version'")
        assert await found(store, User, "user-1")


@pytest.mark.parametrize("change", ["UPDATE gateway_meta SET value = 'x'", "DELETE FROM gateway_meta"])
async def test_a_schema_of_no_known_version_is_trouble(postgres: OwnSchema, change: str) -> None:
    async with opened(postgres) as store:
        await store.migrate()
    await postgres.run(change)

    async with opened(postgres) as store:
        for call in (store.get(User, "user-1"), store.ping(), store.migrate()):
            await trouble(call)


async def test_ids_are_in_the_order_of_bytes_whatever_the_database_is_set_to(postgres: OwnSchema) -> None:
    async with opened(postgres) as store:
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

    async with opened(postgres, timeout_s=SHORT_S) as store:
        async with postgres.connected() as connection, connection.transaction():
            await connection.execute(sql)
            for _ in range(2):
                await trouble(store.migrate())
                await trouble(store.get(User, "user-1"))

        await answer_of(store.migrate)
        assert await answer_of(lambda: store.get(User, "user-1")) is None


async def test_a_standby_is_trouble_and_reads_are_answered(postgres: OwnSchema) -> None:
    async with opened(postgres) as store:
        await store.add(make_user())
    url = f"{url_of(postgres)}&default_transaction_read_only=on"

    async with opened(postgres, url=url) as standby:
        assert await found(standby, User, "user-1")
        for call in (standby.ping(), standby.add(make_user("2")), standby.reserve(make_claim(1))):
            assert (await trouble(call)).code == "25006"


# --- texts that PostgreSQL does not keep


@pytest.mark.parametrize("text", ["a\0b", "\ud83d", "a\udfffb"])
async def test_a_text_that_the_database_does_not_keep_is_in_no_record(postgres: OwnSchema, text: str) -> None:
    async with opened(postgres) as store:
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

    async with opened(postgres) as store:
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
