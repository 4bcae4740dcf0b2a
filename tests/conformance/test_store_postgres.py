"""The store in PostgreSQL: the exported suite on a real server, directly and behind a pooler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from servers.postgres import PostgresServer
from servers.postgres_database import OwnSchema

from backends import Store, StoreOptions, load_store
from backends.store.contract import BudgetStrategy
from backends.testing import StoreSuite

pytestmark = pytest.mark.timeout(300)  # the first run on a machine installs the server

PATIENT_S = 30.0
"""No case is about time, and the machine may be loaded."""


class PostgresStoreCases(StoreSuite):
    url = ""

    def open_store(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
        options = StoreOptions(url=SecretStr(self.url), timeout_s=PATIENT_S)
        return load_store(self.url).open(options, strategy)

    reopen = open_store


class TestPostgresStore(PostgresStoreCases):
    @pytest.fixture(autouse=True)
    def _own_schema(self, postgres: OwnSchema) -> None:
        self.url = f"{postgres.dsn()}?search_path={postgres.name}"


class TestPostgresStoreBehindAPooler(PostgresStoreCases):
    """In a database of its own, emptied before every case: a pooler hands on no search path."""

    @pytest.fixture(autouse=True)
    async def _emptied(self, own_database: str, pooler_port: int) -> None:
        await _run(own_database, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        address = urlsplit(own_database)
        place = f"{address.netloc.rpartition(':')[0]}:{pooler_port}"
        self.url = address._replace(netloc=place, query="pgbouncer=true").geturl()


@pytest.fixture(scope="module")
def own_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The DSN of a database, gone after the tests."""
    name = f"test_{uuid4().hex[:16]}"
    asyncio.run(_run(postgres_server.dsn, f"CREATE DATABASE {name}"))
    yield urlsplit(postgres_server.dsn)._replace(path=f"/{name}").geturl()
    asyncio.run(_run(postgres_server.dsn, f"DROP DATABASE {name} WITH (FORCE)"))


async def _run(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
