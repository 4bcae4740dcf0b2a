"""Stores in a place of their own in a PostgreSQL server, and what tests ask of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr

from backends import StoreOptions, StoreUnavailable
from backends.store.contract import BudgetStrategy
from backends.store.postgres import PostgresStore
from backends.store.records import ApiKey, Budget, User
from backends.testing.cases.base import PATIENCE_S, bounded
from backends.testing.store.examples import hash_of, make_claim, make_user
from backends.testing.store.examples import settled as settlement

from .postgres_database import OwnSchema

SHORT_S = 0.3
T = TypeVar("T")


def url_of(postgres: OwnSchema, port: int | None = None) -> str:
    return f"{postgres.dsn(port)}?search_path={postgres.name}"


@asynccontextmanager
async def opened(
    postgres: OwnSchema,
    strategy: BudgetStrategy = "cas",
    *,
    url: str | None = None,
    port: int | None = None,
    timeout_s: float = PATIENCE_S,
    **more: Any,
) -> AsyncIterator[PostgresStore]:
    """A store in this test's schema; at the end no connection is checked out."""
    address = SecretStr(url or url_of(postgres, port))
    options = StoreOptions(url=address, timeout_s=timeout_s, **more)
    async with PostgresStore.open(options, strategy) as store:
        yield store
        assert store.pool()["in_use"] == 0


def calls_of(store: PostgresStore) -> list[Awaitable[Any]]:
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


async def trouble(call: Awaitable[Any]) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        await bounded(call)
    return caught.value


async def answer_of(call: Callable[[], Awaitable[T]]) -> T:
    """With so little time for an answer, a loaded machine may need to be asked again."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                pass


def everything(error: BaseException | None) -> str:
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
async def locked_users(postgres: OwnSchema) -> AsyncIterator[None]:
    """Somebody has the users meanwhile."""
    async with postgres.connected() as connection, connection.transaction():
        await connection.execute("SELECT 1 FROM gateway_users FOR UPDATE")
        yield


async def until_waiting(postgres: OwnSchema) -> None:
    """Return once a statement of the store waits for a lock."""
    sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'tallygate' AND wait_event_type = 'Lock'"
    async with asyncio.timeout(PATIENCE_S):
        while not await postgres.fetch(sql):
            pass
