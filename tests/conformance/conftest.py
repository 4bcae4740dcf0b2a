"""Servers that several test files share, each started once and only when a test asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from uuid import uuid4

import pytest
from servers import base

DRIVERS = {"asyncpg": "postgres", "pymongo": "mongo", "clickhouse_connect": "clickhouse"}

collect_ignore_glob = [
    f"{kind}_{database}*.py"
    for driver, database in DRIVERS.items()
    for kind in ("test", "test_store")
    if find_spec(driver) is None
]
"""An environment has the drivers of its own database and no others."""


@pytest.fixture(scope="session")
def clickhouse_server() -> Iterator[object]:
    """A ``ClickHouseServer``."""
    from servers.clickhouse import ClickHouseServer

    yield from base.running(ClickHouseServer.find)


@pytest.fixture
def clickhouse(clickhouse_server: object) -> Iterator[object]:
    """An ``OwnDatabase``, gone after the test."""
    from servers.clickhouse import ClickHouseServer
    from servers.clickhouse_database import OwnDatabase

    assert isinstance(clickhouse_server, ClickHouseServer)
    with clickhouse_server.own_database() as name:
        yield OwnDatabase(clickhouse_server, name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[object]:
    """A ``PostgresServer``."""
    from servers.postgres import PostgresServer

    yield from base.running(PostgresServer.find)


@pytest.fixture(scope="session")
def pooler_port(postgres_server: object) -> Iterator[int]:
    """Of pgbouncer in transaction mode before the server; where this machine has none, of the server."""
    from servers.postgres import PgBouncer, PostgresServer

    assert isinstance(postgres_server, PostgresServer)
    if PgBouncer.program() is None or not postgres_server.is_ours:
        yield postgres_server.port
        return
    for pooler in base.running(lambda: PgBouncer(postgres_server)):
        yield pooler.port


@pytest.fixture
async def postgres(postgres_server: object) -> AsyncIterator[object]:
    """An ``OwnSchema``, gone after the test."""
    from servers.postgres import PostgresServer
    from servers.postgres_database import OwnSchema

    assert isinstance(postgres_server, PostgresServer)
    own = OwnSchema(postgres_server, f"test_{uuid4().hex[:16]}")
    await own.run(f"CREATE SCHEMA {own.name}")
    yield own
    await own.run(f"DROP SCHEMA {own.name} CASCADE")


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[object]:
    """A ``MongoServer``."""
    from servers.mongo import MongoServer

    yield from base.running(MongoServer.find)


@pytest.fixture
def mongo(mongo_server: object) -> Iterator[object]:
    """A ``mongo_database.OwnDatabase``, gone after the test."""
    from servers.mongo import MongoServer
    from servers.mongo_database import OwnDatabase

    assert isinstance(mongo_server, MongoServer)
    own = OwnDatabase(mongo_server, f"test_{uuid4().hex[:16]}")
    yield own
    own.drop()
