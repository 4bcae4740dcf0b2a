"""The bare drivers: what a sink's database can do when nobody checks, translates or batches for it.

The same statements and the same durability as the sink's own. Each is given values that were made ready for
it before.
"""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from backends.codec import to_json
from backends.record import COLUMNS, UsageRecord
from backends.statements import statements

from .setting import test_server

Rows: TypeAlias = tuple[UsageRecord, ...]
Insert: TypeAlias = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True)
class Bare:
    """A driver: what it has to be given for rows, and how it inserts that."""

    ready: Callable[[Rows], Any]
    insert: Insert


@dataclass(frozen=True)
class Entrant:
    """``sink`` by ``driver``; ``server`` names what starts its server: module and class."""

    sink: str
    driver: str
    open_bare: Callable[[Mapping[str, Any]], Any]
    server: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        return f"{self.sink} ({self.driver})"


# --- bare drivers


@asynccontextmanager
async def bare_sqlite(options: Mapping[str, Any]) -> AsyncIterator[Bare]:
    sql = statements("sqlite")["insert_row"]
    with closing(sqlite3.connect(options["path"], isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=FULL")

        async def insert(values: Any) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(sql, values)
            connection.execute("COMMIT")

        yield Bare(lambda rows: [tuple(to_json(row).values()) for row in rows], insert)


@asynccontextmanager
async def bare_asyncpg(options: Mapping[str, Any]) -> AsyncIterator[Bare]:
    asyncpg = importlib.import_module("asyncpg")
    sink = importlib.import_module("backends.postgres")
    schema = importlib.import_module("backends.postgres_schema").Schema("usage_logs")
    connection = await asyncpg.connect(options["dsn"])

    async def insert(values: Any) -> None:
        if len(values) <= sink.COPY_ABOVE_ROWS:
            await connection.execute(schema.statement("insert_rows"), *zip(*values, strict=True))
            return
        async with connection.transaction():
            await connection.execute(schema.statement("create_incoming"))
            await connection.copy_records_to_table("tallygate_incoming", records=values, columns=COLUMNS)
            await connection.execute(schema.statement("insert_incoming"))

    try:
        yield Bare(lambda rows: [tuple(getattr(row, name) for name in COLUMNS) for row in rows], insert)
    finally:
        await connection.close()


def bare_mongo(module: str, client: str) -> Callable[[Mapping[str, Any]], Any]:
    @asynccontextmanager
    async def opened(options: Mapping[str, Any]) -> AsyncIterator[Bare]:
        pymongo = importlib.import_module("pymongo")
        document = importlib.import_module("backends.mongo_documents").document
        driver = getattr(importlib.import_module(module), client)(
            options["uri"], uuidRepresentation="standard", retryWrites=False
        )
        concern = pymongo.WriteConcern(w="majority", j=True)
        rows_there = driver[options["database"]].get_collection("usage_logs", write_concern=concern)

        async def insert(values: Any) -> None:
            await rows_there.insert_many(values, ordered=False)

        try:
            yield Bare(lambda rows: [document(row) for row in rows], insert)
        finally:
            if (ending := driver.close()) is not None:
                await ending

    return opened


@asynccontextmanager
async def bare_clickhouse(options: Mapping[str, Any]) -> AsyncIterator[Bare]:
    module = importlib.import_module("clickhouse_connect")
    types = importlib.import_module("backends.clickhouse_schema").TYPES
    columns_of = importlib.import_module("backends.columns").columns_of
    parts = urlsplit(options["url"])
    client = await module.get_async_client(
        host=parts.hostname,
        port=parts.port,
        username=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database=options["database"],
        autogenerate_session_id=False,
    )

    async def insert(values: Any) -> None:
        token, columns = values
        await client.insert(
            "usage_logs",
            columns,
            column_names=COLUMNS,
            column_type_names=tuple(types.values()),
            column_oriented=True,
            settings={"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": token},
        )

    try:
        yield Bare(lambda rows: (str(rows[0].id), columns_of(rows)), insert)
    finally:
        await client.close()


ENTRANTS = (
    Entrant("sqlite", "sqlite3", bare_sqlite),
    Entrant("postgres", "asyncpg", bare_asyncpg, ("servers.postgres", "PostgresServer")),
    Entrant(
        "mongo",
        "motor",
        bare_mongo("motor.motor_asyncio", "AsyncIOMotorClient"),
        ("servers.mongo", "MongoServer"),
    ),
    Entrant("mongo", "pymongo", bare_mongo("pymongo", "AsyncMongoClient"), ("servers.mongo", "MongoServer")),
    Entrant("clickhouse", "clickhouse_connect", bare_clickhouse, ("servers.clickhouse", "ClickHouseServer")),
)


# --- servers


@contextmanager
def running(entrant: Entrant, folder: Path) -> Iterator[dict[str, Any]]:
    """The sink's options for an empty place of its own, its server running if it has one."""
    if entrant.server is None:
        yield {"path": str(folder / "bench.db")}
        return
    server = test_server(*entrant.server)
    server.start()
    try:
        with place_on(server, entrant) as options:
            yield options
    finally:
        server.stop()


@contextmanager
def place_on(server: Any, entrant: Entrant) -> Iterator[dict[str, Any]]:
    """The same on a running server."""
    own = server.own_database() if entrant.sink == "clickhouse" else nullcontext("")
    with own as database:
        if entrant.sink == "postgres":
            yield {"dsn": server.dsn}
        elif entrant.sink == "mongo":
            yield {"uri": server.url, "database": f"bench_{entrant.driver}", "driver": entrant.driver}
        else:
            yield {"url": server.url, "database": database}
