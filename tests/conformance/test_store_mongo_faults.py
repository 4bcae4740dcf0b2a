"""The store in MongoDB when the server is down, silent, cut off, or asked by everybody at once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from servers.base import need_ours
from servers.mongo_database import OwnDatabase, collect_connecting_sockets
from servers.mongo_store import served, store_options
from servers.proxy import Proxy

from backends.errors import StoreError, StoreUnavailable
from backends.store import Budget, Store, StoreOptions, User
from backends.store.mongo import MongoStore
from backends.testing import make_api_key, make_budget, make_claim, make_user
from backends.testing.cases.base import bounded
from backends.testing.cases.base import settled as ended
from backends.testing.store.examples import now, settled

pytestmark = pytest.mark.timeout(900)  # the first run on a machine builds the server

T = TypeVar("T")

SHORT_S = 0.5
LONG_S = 60.0
"""Longer than any test has patience; no store waits longer."""

CALLS: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "ping": lambda store: store.ping(),
    "migrate": lambda store: store.migrate(),
    "add": lambda store: store.add(make_api_key()),
    "get": lambda store: store.get(User, "user-1"),
    "list": lambda store: store.list(User),
    "update": lambda store: store.update(User, "user-1", {"alias": "x"}),
    "remove": lambda store: store.remove(Budget, "b"),
    "find_key": lambda store: store.find_key("x"),
    "touch_keys": lambda store: store.touch_keys({"x": now()}),
    "keep_master_key": lambda store: store.keep_master_key("x"),
    "reserve": lambda store: store.reserve(make_claim()),
    "settle": lambda store: store.settle([settled(make_claim())]),
    "sweep": lambda store: store.sweep(now()),
    "rebuild_spent": lambda store: store.rebuild_spent(make_user(), 1),
}


@pytest.fixture
async def proxy(mongo: OwnDatabase) -> AsyncIterator[Proxy]:
    async with mongo.proxy() as wire:
        yield wire


@pytest.fixture(autouse=True)
def no_socket_is_left_to_a_later_test() -> Iterator[None]:
    yield
    collect_connecting_sockets()


# --- everybody at once


async def test_of_fifty_claims_by_two_stores_ten_are_held_where_there_is_room_for_ten(
    mongo: OwnDatabase,
) -> None:
    async with (
        served(mongo) as options,
        MongoStore.open(options) as first,
        MongoStore.open(options) as second,
    ):
        await first.add(make_budget("b", 100))
        await first.add(make_user(budget_id="b"))
        claims = [(store, make_claim(10)) for store in (first, second) * 25]
        verdicts = await asyncio.gather(*(store.reserve(claim) for store, claim in claims))
        user = await second.get(User, "user-1")

    assert sorted(verdicts) == ["held"] * 10 + ["over_budget"] * 40
    assert user and user.reserved_nano == 100


# --- a server that does not answer


@pytest.mark.parametrize("name", CALLS)
async def test_a_silent_server_is_given_up_in_time(mongo: OwnDatabase, proxy: Proxy, name: str) -> None:
    async with MongoStore.open(store_options(mongo, port=proxy.port, timeout_s=SHORT_S)) as store:
        await until_done(lambda: store.ping())
        proxy.black_hole()
        error = await refusal(CALLS[name](store))
        await proxy.heal()
        await until_done(lambda: store.ping())

    assert isinstance(error, StoreUnavailable)
    gc.collect()


async def test_a_server_that_was_never_there_is_told_of_by_every_call(
    mongo: OwnDatabase, proxy: Proxy
) -> None:
    proxy.refuse()

    async with MongoStore.open(store_options(mongo, port=proxy.port, timeout_s=SHORT_S)) as store:
        errors = await asyncio.gather(*(refusal(call(store)) for call in CALLS.values()))
        await proxy.heal()
        await until_done(lambda: store.add(make_user()))

    assert {type(error) for error in errors} == {StoreUnavailable}


async def test_more_calls_than_connections_wait_no_longer_than_one(mongo: OwnDatabase, proxy: Proxy) -> None:
    options = store_options(mongo, port=proxy.port, timeout_s=SHORT_S, max_connections=2)

    async with MongoStore.open(options) as store:
        await until_done(lambda: store.ping())
        proxy.black_hole()
        errors = await asyncio.gather(*(refusal(store.list(User)) for _ in range(20)))
        connections = proxy.connections
        await proxy.heal()
        await until_done(lambda: store.ping())

        assert {type(error) for error in errors} == {StoreUnavailable}
        assert connections <= 2 + 2  # beside the driver's own, which look after the server
        assert store.pool()["in_use"] == 0


async def test_a_server_that_is_killed_is_found_again(mongo: OwnDatabase) -> None:
    need_ours(mongo.server)
    claim = make_claim(10)

    async with MongoStore.open(store_options(mongo, timeout_s=2)) as store:
        await store.add(make_budget("b", 15))
        await store.add(make_user(budget_id="b"))
        assert await store.reserve(claim) == "held"
        await asyncio.to_thread(mongo.server.kill)
        try:
            assert isinstance(await refusal(store.reserve(make_claim(10))), StoreUnavailable)
        finally:
            await asyncio.to_thread(mongo.server.restart)
        await until_done(lambda: store.ping())

        assert await store.reserve(make_claim(10)) == "over_budget"
        await store.settle([settled(claim, 3)])
        user = await store.get(User, "user-1")
        assert user and (user.spent_nano, user.reserved_nano) == (3, 0)


async def test_a_server_that_is_frozen_is_given_up_and_found_again(mongo: OwnDatabase) -> None:
    need_ours(mongo.server)

    async with MongoStore.open(store_options(mongo, timeout_s=SHORT_S)) as store:
        await until_done(lambda: store.add(make_user()))
        mongo.server.freeze()
        try:
            error = await refusal(store.reserve(make_claim()))
        finally:
            mongo.server.thaw()

        assert isinstance(error, StoreUnavailable)
        claim = make_claim()
        await until_done(lambda: store.reserve(claim))


# --- answers that are lost


async def test_a_claim_whose_answer_is_lost_is_held_once(mongo: OwnDatabase, proxy: Proxy) -> None:
    claim = make_claim(10)

    async with MongoStore.open(store_options(mongo, port=proxy.port)) as store:
        await store.add(make_user())
        proxy.drop_reply(b"gateway_users")
        assert isinstance(await refusal(store.reserve(claim)), StoreUnavailable)
        assert proxy.strikes == 1

        assert await store.reserve(claim) == "held"
        user = await store.get(User, "user-1")
        assert user and user.reserved_nano == 10


async def test_a_settlement_whose_answer_is_lost_counts_once(mongo: OwnDatabase, proxy: Proxy) -> None:
    claims = [make_claim(10) for _ in range(5)]

    async with MongoStore.open(store_options(mongo, port=proxy.port)) as store:
        await store.add(make_user())
        for claim in claims:
            await store.reserve(claim)
        proxy.drop_reply(b"gateway_users")
        assert isinstance(
            await refusal(store.settle([settled(each, 7) for each in claims])), StoreUnavailable
        )
        await store.settle([settled(each, 7) for each in claims])

        user = await store.get(User, "user-1")
        assert user and (user.spent_nano, user.reserved_nano) == (35, 0)


async def test_a_change_of_a_budget_that_is_interrupted_is_ended_by_the_next(
    mongo: OwnDatabase, proxy: Proxy
) -> None:
    async with MongoStore.open(store_options(mongo, port=proxy.port)) as store:
        await store.add(make_budget("b", 100))
        await store.add(make_user(budget_id="b"))
        proxy.drop_reply(b"findAndModify")  # the budget is changed, its users are not yet
        error = await refusal(store.update(Budget, "b", {"limit_nano": 40}))
        left = await store.get(User, "user-1")
        await store.update(Budget, "b", {"limit_nano": 40})
        user = await store.get(User, "user-1")

    assert isinstance(error, StoreUnavailable)
    assert left and user and (left.limit_nano, user.limit_nano) == (100, 40)


# --- calls that nobody waits for any more


async def test_a_cancelled_call_is_over_at_once_though_nobody_answers(
    mongo: OwnDatabase, proxy: Proxy
) -> None:
    async with MongoStore.open(store_options(mongo, port=proxy.port, timeout_s=LONG_S)) as store:
        await store.add(make_user())
        for name in ("reserve", "settle", "find_key", "ping"):
            task = await _under_way(proxy, CALLS[name](store))
            task.cancel()
            await ended(task)
            assert task.cancelled()
        proxy.refuse()
        await proxy.heal()
        await until_done(lambda: store.reserve(make_claim()))
    gc.collect()


async def test_closing_waits_for_no_server_that_does_not_answer(mongo: OwnDatabase, proxy: Proxy) -> None:
    async with AsyncExitStack() as stack:
        options = store_options(mongo, port=proxy.port, timeout_s=LONG_S)
        store = await stack.enter_async_context(MongoStore.open(options))
        await store.ping()
        task = await _under_way(proxy, store.reserve(make_claim()))
        await bounded(stack.aclose())
        await ended(task)

    assert isinstance(task.exception(), StoreUnavailable)
    assert isinstance(await refusal(store.ping()), StoreUnavailable)
    gc.collect()


# --- secrets


async def test_a_wrong_password_is_told_without_it(mongo: OwnDatabase) -> None:
    options = store_options(mongo)
    rest = options.url.get_secret_value().partition("://")[2].rpartition("@")[2]
    wrong = StoreOptions.model_validate({"url": f"mongodb://nobody:opensesame@{rest}"})

    async with MongoStore.open(wrong) as store:
        error = await refusal(store.ping())

    assert isinstance(error, StoreUnavailable) and error.code == "AuthenticationFailed"
    assert "opensesame" not in f"{error} {error!r} {error.__cause__!r} {wrong!r}"


async def test_no_error_shows_the_password_of_a_server_that_is_down() -> None:
    options = {"url": "mongodb://nobody:opensesame@127.0.0.1:1/gateway", "timeout_s": SHORT_S}

    async with MongoStore.open(StoreOptions.model_validate(options)) as store:
        errors = [await refusal(CALLS[name](store)) for name in ("ping", "reserve")]

    assert "opensesame" not in "".join(f"{error} {error!r} {error.__cause__!r}" for error in errors)


# --- helpers


async def refusal(call: Awaitable[object]) -> StoreError:
    """What the store raises; anything else, or nothing, fails the case."""
    with pytest.raises(StoreError) as caught:
        await bounded(call)
    return caught.value


async def until_done(call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` gives in the end. With so little time a loaded machine may need another try."""
    async with asyncio.timeout(LONG_S):
        while True:
            try:
                return await bounded(call())
            except StoreUnavailable:
                continue


async def _under_way(proxy: Proxy, call: Any) -> asyncio.Future[Any]:
    """``call``, asked on a wire on which nobody will answer."""
    proxy.black_hole()
    proxy.struck.clear()
    task = asyncio.ensure_future(call)
    await bounded(proxy.struck.wait())
    return task
