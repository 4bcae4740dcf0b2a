"""Every store that can be shared, as the process tests see it: its URL, its accounts, and how it fails.

A fixture gives a place of the test's own: a file, or a schema or database in a server that all tests share.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from servers.base import need_ours

from backends import Budget, Store, StoreOptions, User, load_store

LONG_S = 30.0
TOKENS = 10
HELD_NANO = TOKENS * 1_000
"""For a call that asks for ``TOKENS``, and what it costs in the end: the prompt is free."""
PRICES = {"local:fake": {"input_per_million": 0, "output_per_million": 1}}
DRIVERS = {"sqlite": "sqlite3", "postgres": "asyncpg", "mongo": "pymongo"}
NAMES = tuple(name for name, driver in DRIVERS.items() if find_spec(driver))
STRATEGIES = tuple(
    (name, strategy)
    for name in NAMES
    for strategy in ("cas", "for_update")
    if (name, strategy) != ("mongo", "for_update")
)


@dataclass
class Accounts:
    """A store, and what gateways on it are told. ``down``: inside, it takes nothing."""

    url: str
    down: Callable[[], AbstractAsyncContextManager[None]]
    strategy: str = "cas"

    def sections(self, ttl_s: float = 900, **store: Any) -> dict[str, Any]:
        """For the configuration of a gateway."""
        return {
            "store": {"url": self.url, **store},
            "budget_strategy": self.strategy,
            "budgets": {"reservation_ttl_s": ttl_s},
            "pricing": PRICES,
        }

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        """The store, beside the gateways."""
        options = StoreOptions.model_validate({"url": self.url, "timeout_s": 10})
        async with load_store(self.url).open(options) as store:
            yield store

    async def allow(self, calls: int) -> None:
        """The user ``u`` may make so many calls."""
        now = datetime.now(UTC)
        async with self.open() as store:
            await store.add(Budget(id="b", limit_nano=calls * HELD_NANO, created_at=now))
            await store.add(User(id="u", budget_id="b", created_at=now))

    async def account(self) -> tuple[int, int]:
        """Spent and held."""
        async with self.open() as store:
            user = await store.get(User, "u")
        assert user is not None
        return user.spent_nano, user.reserved_nano

    async def show(self, spent_nano: int, reserved_nano: int) -> None:
        """Returns once the account reads so."""
        async with asyncio.timeout(LONG_S):
            while (found := await self.account()) != (spent_nano, reserved_nano):
                assert found[0] <= spent_nano, found


EACH_STRATEGY = pytest.mark.parametrize("accounts", STRATEGIES, ids="-".join, indirect=True)


@pytest.fixture(params=[(name, "cas") for name in NAMES], ids="-".join)
async def accounts(
    request: pytest.FixtureRequest, tmp_path: Path, servers: Any, locked: Any
) -> AsyncIterator[Accounts]:
    """See ``Accounts``; each store once, or under ``EACH_STRATEGY`` with each strategy that it has."""
    name, strategy = request.param
    async with PLACES[name](tmp_path, servers, locked) as place:
        place.strategy = strategy
        yield place


@asynccontextmanager
async def _in_a_file(folder: Path, servers: Any, locked: Any) -> AsyncIterator[Accounts]:
    path = folder / "data" / "gateway.db"

    @asynccontextmanager
    async def down() -> AsyncIterator[None]:
        with locked(path):
            yield

    yield Accounts(f"sqlite:///{path}", down)


@asynccontextmanager
async def _in_postgres(folder: Path, servers: Any, locked: Any) -> AsyncIterator[Accounts]:
    server, name = await asyncio.to_thread(servers, "postgres"), f"test_{uuid4().hex[:16]}"
    schema = importlib.import_module("servers.postgres_database").OwnSchema(server, name)
    await schema.run(f"CREATE SCHEMA {name}")
    url = importlib.import_module("servers.postgres_store").url_of(schema)
    yield Accounts(url, lambda: _killed(server))
    await schema.run(f"DROP SCHEMA {name} CASCADE")


@asynccontextmanager
async def _in_mongo(folder: Path, servers: Any, locked: Any) -> AsyncIterator[Accounts]:
    server, name = await asyncio.to_thread(servers, "mongo"), f"test_{uuid4().hex[:16]}"
    database = importlib.import_module("servers.mongo_database").OwnDatabase(server, name)
    async with importlib.import_module("servers.mongo_store").served(database) as options:
        yield Accounts(options.url.get_secret_value(), lambda: _killed(server))
    await asyncio.to_thread(database.drop)


@asynccontextmanager
async def _killed(server: Any) -> AsyncIterator[None]:
    need_ours(server)
    await asyncio.to_thread(server.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(server.restart)


PLACES = {"sqlite": _in_a_file, "postgres": _in_postgres, "mongo": _in_mongo}
