"""The store in MongoDB: the exported suite, what lies in the collections, and what they have to be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from bson import Int64
from pydantic import SecretStr
from servers.mongo_database import OwnDatabase, collect_connecting_sockets
from servers.mongo_store import served

import backends.store.mongo_accounts
import backends.store.mongo_records
from backends.errors import StoreConflict, StoreUnavailable
from backends.store import Budget, Claim, Store, StoreOptions, User, load_store
from backends.store.contract import BudgetStrategy
from backends.store.memory import MemoryStore
from backends.store.mongo import MongoStore
from backends.store.mongo_driver import Table
from backends.testing import StoreSuite, make_api_key, make_budget, make_claim, make_price, make_user
from backends.testing.cases.base import bounded
from backends.testing.store.examples import settled

pytestmark = pytest.mark.timeout(900)  # the first run on a machine builds the server

SECRET = "p4ss-w0rd"


class TestMongoStore(StoreSuite):
    strategies = ("cas",)

    @pytest.fixture(autouse=True)
    async def _own_database(self, mongo: OwnDatabase) -> AsyncIterator[None]:
        async with served(mongo) as self.options:
            yield

    def open_store(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
        return load_store("mongodb:").open(self.options, strategy)

    def reopen(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
        return self.open_store(strategy)


@pytest.fixture
async def options(mongo: OwnDatabase) -> AsyncIterator[StoreOptions]:
    async with served(mongo) as found:
        yield found


# --- opening


@pytest.mark.parametrize(
    "url",
    [
        f"mongodb://gateway:{SECRET}",
        f"mongodb://gateway:{SECRET}/@localhost",
        f"mongodb://gateway:{SECRET}@localhost:port",
        f"mongodb://gateway:{SECRET}@localhost/gateway?no_such_option=1",
        f"mongodb://gateway:{SECRET}@localhost/gateway?tls={SECRET}",
        f"mongodb://gateway:{SECRET}@localhost/two words",
        f"mongodb://gateway:{SECRET}@localhost/one/two",
        f"mongodb+srv://gateway:{SECRET}@localhost:27017/gateway",
        f"mongodb+srv://gateway:{SECRET}@db.invalid/two words",
        f"mongodb+srv://gateway:{SECRET}",
        "mongodb://",
    ],
)
async def test_a_url_that_cannot_be_used_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="mongodb://HOST") as caught:
        async with MongoStore.open(StoreOptions(url=SecretStr(url))):
            pass

    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_strategy_that_is_not_offered_is_refused() -> None:
    with pytest.raises(ValueError, match="write cas"):
        async with MongoStore.open(StoreOptions(url=SecretStr("mongodb://localhost")), "for_update"):
            pass


@pytest.mark.parametrize("url", ["mongodb://127.0.0.1:1", "mongodb+srv://no.such.host.invalid"])
async def test_opening_needs_no_server_and_no_name_service(url: str) -> None:
    async with MongoStore.open(StoreOptions(url=SecretStr(url), timeout_s=0.5)) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()

    del store
    collect_connecting_sockets()


async def test_the_database_is_the_one_of_the_url(mongo: OwnDatabase, options: StoreOptions) -> None:
    async with MongoStore.open(options) as store:
        await store.add(make_budget("b"))

    assert [found["_id"] for found in mongo.documents("gateway_budgets")] == ["b"]


# --- documents


async def test_every_whole_number_has_64_bits(mongo: OwnDatabase, options: StoreOptions) -> None:
    async with MongoStore.open(options) as store:
        await store.add(make_budget("b", 100, reset_every_s=60))
        await store.add(make_user(budget_id="b", rate_limit_rpm=5))
        for claim in (make_claim(1), make_claim(2)):
            await store.reserve(claim)
        await store.settle([settled(claim)])
        await store.update(Budget, "b", {"limit_nano": 90, "reset_every_s": 30})

    (user,) = mongo.documents("gateway_users")
    (claim_left,) = user["claims"].values()
    numbers = {name: value for name, value in {**user, **claim_left}.items() if type(value) in (int, float)}
    assert numbers == {}
    assert (type(user["spent_nano"]), user["available_nano"]) == (Int64, 90 - 2 - 1)


async def test_indexes_are_made_for_each_question(mongo: OwnDatabase, options: StoreOptions) -> None:
    async with MongoStore.open(options) as store:
        await store.ping()

    with mongo.connected() as database:
        found = {
            name: [field for field, _ in each["key"]]
            for kind in ("keys", "users", "prices")
            for name, each in database[f"gateway_{kind}"].index_information().items()
        }
    assert found == {
        "_id_": ["_id"],
        "by_secret": ["secret_hash"],
        "by_previous": ["previous_hash"],
        "by_user": ["user_id", "_id"],
        "by_budget": ["budget_id"],
        "by_sweep": ["sweep_at"],
        "by_model": ["model", "effective_at"],
    }


async def test_a_record_that_somebody_edited_is_named(mongo: OwnDatabase, options: StoreOptions) -> None:
    async with MongoStore.open(options) as store:
        await store.add(make_budget("b"))
        with mongo.connected() as database:
            database["gateway_budgets"].update_one({}, {"$unset": {"limit_nano": ""}})

        with pytest.raises(StoreUnavailable, match="the budget 'b' was changed by another program"):
            await store.get(Budget, "b")


async def test_a_claim_that_is_settled_leaves_nothing_behind(
    mongo: OwnDatabase, options: StoreOptions
) -> None:
    swept, claim = make_claim(1), make_claim(1)

    async with MongoStore.open(options) as store:
        await store.add(make_user())
        for each in (swept, claim):
            await store.reserve(each)
        await store.sweep(swept.expires_at)
        await store.settle([settled(swept), settled(claim)])
        await store.sweep(swept.expires_at.replace(year=2100))

    (user,) = mongo.documents("gateway_users")
    assert (user["claims"], "sweep_at" in user) == ({}, False)


# --- schema


async def test_without_migration_the_missing_schema_is_named(options: StoreOptions) -> None:
    unasked = options.model_copy(update={"migrate": False})

    async with MongoStore.open(unasked) as store:
        with pytest.raises(StoreUnavailable, match="tallygate migrate"):
            await store.list(User)
        await store.migrate()

        assert await store.list(User) == []


async def test_a_schema_of_a_newer_program_is_left_alone(mongo: OwnDatabase, options: StoreOptions) -> None:
    async with MongoStore.open(options) as store:
        await store.ping()
    with mongo.connected() as database:
        database["gateway_meta"].update_one({"_id": "schema"}, {"$set": {"version": 2}})

    async with MongoStore.open(options) as store:
        for call in (store.list(User), store.ping(), store.migrate()):
            with pytest.raises(StoreUnavailable, match="schema 2, this program knows 1"):
                await call


async def test_a_database_that_is_dropped_while_we_run_is_made_again_by_a_ping(
    mongo: OwnDatabase, options: StoreOptions
) -> None:
    async with MongoStore.open(options) as store:
        await store.add(make_user())
        mongo.drop()
        await store.ping()

    with mongo.connected() as database:
        assert "by_sweep" in database["gateway_users"].index_information()


async def test_a_server_that_is_no_mongod_is_warned_of_once(
    mongo: OwnDatabase, options: StoreOptions, caplog: pytest.LogCaptureFixture
) -> None:
    async with MongoStore.open(options) as store:
        for _ in range(3):
            await store.ping()

    assert [each.message for each in caplog.records] == ["store_not_atomic"] * (not mongo.server.is_real)


# --- money


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_accounts_are_those_of_the_reference(
    mongo: OwnDatabase, options: StoreOptions, seed: int
) -> None:
    random = Random(seed)
    claims: list[Claim] = []
    async with MongoStore.open(options) as store, MemoryStore.open(_MEMORY) as reference:
        for each in (store, reference):
            await _furnish(each)
        for _ in range(60):
            step = _step(random, claims)
            assert await bounded(_do(store, *step)) == await _do(reference, *step)
        for each in (store, reference):  # the reference lets go earlier than it has to
            await each.sweep(max(claim.expires_at for claim in claims))

        mine, theirs = await store.list(User), await reference.list(User)

    assert [(each.spent_nano, each.reserved_nano, each.limit_nano) for each in mine] == [
        (each.spent_nano, each.reserved_nano, each.limit_nano) for each in theirs
    ]
    assert_available(mongo)


async def test_a_change_reaches_more_users_than_are_looked_at_with_one_question(
    options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (backends.store.mongo_accounts, backends.store.mongo_records):
        monkeypatch.setattr(module, "PAGE", 3)
    claims = [make_claim(1, f"user {number}") for number in range(10)]

    async with MongoStore.open(options) as store:
        await store.add(make_budget("b", 100, reset_every_s=60))
        for claim in claims:
            await store.add(make_user(claim.user_id, budget_id="b"))
            await store.reserve(claim)
        await store.update(Budget, "b", {"limit_nano": 50, "reset_every_s": 90})
        await store.update(Budget, "b", {"limit_nano": 40})
        await store.settle([settled(claim) for claim in claims[:5]])
        swept = await store.sweep(claims[-1].expires_at)
        users = await store.list(User)

    assert swept == 5
    assert {(each.limit_nano, each.reset_every_s, each.reserved_nano) for each in users} == {(40, 90, 0)}


# --- somebody else, between reading and writing


async def test_a_settlement_while_a_period_ends_is_counted_once(
    mongo: OwnDatabase, options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_claim(5, "poor"), make_claim(7, "poor")
    later = make_claim(10, "poor", made_at=first.made_at + timedelta(minutes=5))

    async with MongoStore.open(options) as store:
        await _furnish(store)
        await store.update(Budget, "small", {"reset_every_s": 60})
        for claim in (first, second):
            await store.reserve(claim)
        await store.settle([settled(first)])
        meddle(monkeypatch, "find_one", lambda: store.settle([settled(second)]))
        assert await store.reserve(later) == "held"

    assert_available(mongo)


async def test_a_settlement_while_an_account_begins_is_counted_once(
    mongo: OwnDatabase, options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = make_claim(7, "poor")

    async with MongoStore.open(options) as store:
        await _furnish(store)
        await store.reserve(claim)
        meddle(monkeypatch, "find_one", lambda: store.settle([settled(claim)]))
        await store.update(User, "poor", {"budget_id": "big"})

    assert_available(mongo)


async def test_terms_that_come_late_do_not_replace_newer_ones(
    mongo: OwnDatabase, options: StoreOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with MongoStore.open(options) as store:
        await _furnish(store)
        meddle(monkeypatch, "changed", lambda: store.update(Budget, "small", {"limit_nano": 30}))
        await store.update(Budget, "small", {"limit_nano": 40})
        budget, user = await store.get(Budget, "small"), await store.get(User, "poor")

    assert budget and user and (budget.limit_nano, user.limit_nano) == (30, 30)
    assert_available(mongo)


# --- one record and another


async def test_a_budget_that_a_user_is_being_given_stays(mongo: OwnDatabase, options: StoreOptions) -> None:
    claim = make_claim()
    async with MongoStore.open(options) as store:
        await store.add(make_budget("b"))
        with mongo.connected() as database:
            joining = {"joining.elsewhere": claim.made_at}
            database["gateway_budgets"].update_one({}, {"$set": joining, "$inc": {"joins": 1}})

        with pytest.raises(StoreConflict, match="is being given"):
            await store.remove(Budget, "b")


async def test_a_budget_goes_though_somebody_died_who_gave_it_to_a_user(
    mongo: OwnDatabase, options: StoreOptions
) -> None:
    async with MongoStore.open(options) as store:
        await store.add(make_budget("b"))
        with mongo.connected() as database:
            joining = {"joining.elsewhere": make_budget().created_at}
            database["gateway_budgets"].update_one({}, {"$set": joining, "$inc": {"joins": 1}})

        assert await store.remove(Budget, "b")


async def test_the_unique_indexes_refuse_what_nobody_asked_about(options: StoreOptions) -> None:
    key, price = make_api_key(), make_price()

    async with MongoStore.open(options) as store:
        await store.add(key)
        await store.add(price)
        with pytest.raises(StoreConflict, match="secret"):
            await store.add(make_api_key(secret_hash=key.secret_hash))
        with pytest.raises(StoreConflict, match="another price"):
            await store.add(make_price(model=price.model, effective_at=price.effective_at))


# --- helpers

_MEMORY = StoreOptions(url=SecretStr("memory:"))
_USERS = ("rich", "poor", "free")


def assert_available(mongo: OwnDatabase) -> None:
    """What is left is derived from the rest, in every document."""
    for user in mongo.documents("gateway_users"):
        limit = 9 * 10**18 if user["limit_nano"] is None else user["limit_nano"]
        assert user["available_nano"] == limit - user["spent_nano"] - user["reserved_nano"]


def meddle(patch: pytest.MonkeyPatch, name: str, action: Callable[[], Awaitable[object]]) -> None:
    """After the next call of a table's method ``name``, and before its caller goes on, ``action`` happens."""
    method, actions = getattr(Table, name), [action]

    async def meddled(*args: Any, **kwargs: Any) -> Any:
        answer = await method(*args, **kwargs)
        while actions:
            await actions.pop()()
        return answer

    patch.setattr(Table, name, meddled)


async def _furnish(store: Store) -> None:
    await store.add(make_budget("big", 10_000))
    await store.add(make_budget("small", 50))
    for id, budget_id in zip(_USERS, ("big", "small", None), strict=True):
        await store.add(make_user(id, budget_id=budget_id))


def _step(random: Random, claims: list[Claim]) -> tuple[str, Any]:
    """A method of a store and what it is given. ``claims`` are those made so far."""
    what = random.choice(("reserve", "reserve", "reserve", "settle", "settle", "sweep", "limit", "give"))
    some = random.sample(claims, min(len(claims), 3))
    if what == "reserve":
        lives_s = random.choice((1, 900))
        made_at = (claims[-1].made_at if claims else make_claim().made_at) + timedelta(milliseconds=100)
        claim = make_claim(random.randrange(30), random.choice(_USERS), made_at=made_at)
        claims.append(replace(claim, expires_at=made_at + timedelta(seconds=lives_s)))
        return what, claims[-1]
    if what == "settle":
        return what, [settled(claim, random.randrange(40)) for claim in some]
    if what == "sweep":
        return what, some[0].expires_at if some else make_claim().made_at
    if what == "limit":
        return what, (random.choice(("big", "small")), random.randrange(200))
    return what, (random.choice(_USERS), random.choice(("big", "small", None)))


async def _do(store: Store, what: str, given: Any) -> object:
    if what == "limit":
        await store.update(Budget, given[0], {"limit_nano": given[1]})
        return None
    if what == "give":
        await store.update(User, given[0], {"budget_id": given[1]})
        return None
    if what == "sweep":
        await store.sweep(given)
        return None
    answer: object = await getattr(store, what)(given)
    return answer
