"""`make bench`, second half: rows per second into each sink beside its bare driver, in one run.

One batch after the other, each acknowledged by the server before the next is sent; sink and driver take turns
on one table, with the same statements and the same durability. The sink is given usage rows. The driver is
given values that were made ready for it before, so that the first ratio shows all that the sink adds: checks,
translation, its pool, its tasks. The second one adds to the driver's time that of making those values.
Servers are those of the tests.
"""

from __future__ import annotations

import argparse
import importlib
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import uvloop

from backends import sinks
from backends.codec import to_json
from backends.record import COLUMNS, Batch, UsageRecord
from backends.statements import statements
from backends.testing import make_records

SIZES = (100, 1000, 5000)
LEAST_S = 3.0
"""How long sink and driver write in turn at one size, the making of rows not counted, ..."""
LEAST_PAIRS = 4
"""... and how many batches each of them writes at least."""
GOAL = (1000, 0.7)
"""At this many rows per batch a sink is to do so much of what its bare driver does."""

Rows: TypeAlias = tuple[UsageRecord, ...]
Insert: TypeAlias = Callable[[Any], Awaitable[None]]


@dataclass(frozen=True)
class Bare:
    """A driver: what it has to be given for rows, and how it inserts that."""

    ready: Callable[[Rows], Any]
    insert: Insert


@dataclass(frozen=True)
class Entrant:
    """``sink`` by ``driver``; ``server`` names what starts its server, as ``module:class``."""

    sink: str
    driver: str
    open_bare: Callable[[Mapping[str, Any]], Any]
    server: str | None = None

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
    Entrant("postgres", "asyncpg", bare_asyncpg, "servers.postgres:PostgresServer"),
    Entrant(
        "mongo",
        "motor",
        bare_mongo("motor.motor_asyncio", "AsyncIOMotorClient"),
        "servers.mongo:MongoServer",
    ),
    Entrant("mongo", "pymongo", bare_mongo("pymongo", "AsyncMongoClient"), "servers.mongo:MongoServer"),
    Entrant("clickhouse", "clickhouse_connect", bare_clickhouse, "servers.clickhouse:ClickHouseServer"),
)


# --- servers


@contextmanager
def running(entrant: Entrant, folder: Path) -> Iterator[dict[str, Any]]:
    """The sink's options for an empty place of its own, its server running if it has one."""
    if entrant.server is None:
        yield {"path": str(folder / "bench.db")}
        return
    module, _, name = entrant.server.partition(":")
    server = getattr(importlib.import_module(module), name).find()
    server.start()
    try:
        with place_on(server, entrant) as options:
            yield options
    finally:
        server.stop()


@contextmanager
def place_on(server: Any, entrant: Entrant) -> Iterator[dict[str, Any]]:
    own = server.own_database() if entrant.sink == "clickhouse" else nullcontext("")
    with own as database:
        if entrant.sink == "postgres":
            yield {"dsn": server.dsn}
        elif entrant.sink == "mongo":
            yield {"uri": server.url, "database": f"bench_{entrant.driver}", "driver": entrant.driver}
        else:
            yield {"url": server.url, "database": database}


# --- measuring


@dataclass(frozen=True)
class Figures:
    """Medians, in seconds for a batch of ``size`` rows. ``ready``: to make the driver's values of them."""

    size: int
    ready: float
    driver: float
    sink: float

    def rate(self, seconds: float) -> float:
        return self.size / seconds


async def measured(entrant: Entrant, options: Mapping[str, Any]) -> list[Figures]:
    sink_class = sinks.load(entrant.sink)
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(sink_class.open(sink_class.Options.model_validate(options)))

        async def write(batch: Batch) -> None:
            committed = await sink.write(batch)
            assert committed.new == len(batch.rows), committed

        await write(Batch.of(make_records(1)))  # makes the tables
        bare: Bare = await stack.enter_async_context(entrant.open_bare(options))
        await bare.insert(bare.ready(make_records(1)))
        return [await compared(size, bare, write) for size in SIZES]


async def compared(size: int, bare: Bare, write: Insert) -> Figures:
    ready, drivers, sink = list[float](), list[float](), list[float]()
    while len(sink) < LEAST_PAIRS or sum(drivers) + sum(sink) < LEAST_S:
        rows = make_records(size)
        began = time.perf_counter()
        values = bare.ready(rows)
        ready.append(time.perf_counter() - began)
        batch = Batch.of(make_records(size))
        turns = [(drivers, bare.insert, values), (sink, write, batch)]
        for seconds, insert, given in turns if len(sink) % 2 else reversed(turns):
            began = time.perf_counter()
            await insert(given)
            seconds.append(time.perf_counter() - began)
    return Figures(size, *map(statistics.median, (ready, drivers, sink)))


def main(names: Sequence[str]) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # for the servers
    print("\nRows per second; ratio: sink to driver alone, from rows: to driver and making its values")
    print(f"  {'':<32}{'batch':>6}{'bare driver':>13}{'sink':>10}{'ratio':>8}{'from rows':>11}", flush=True)
    for entrant in ENTRANTS:
        if names and entrant.sink not in names:
            continue
        if find_spec(entrant.driver) is None:
            print(f"  {entrant.name:<32}left out: pip install 'tallygate[{entrant.sink}]'")
            continue
        show(entrant)


def show(entrant: Entrant) -> None:
    with tempfile.TemporaryDirectory(prefix="tallygate-bench-") as folder:
        try:
            with running(entrant, Path(folder)) as options:
                figures = uvloop.run(measured(entrant, options))
        except Exception as error:
            if type(error).__name__ != "ServerMissing":  # imported with the servers, where there are any
                raise
            print(f"  {entrant.name:<32}left out: {error}")
            return
    for each in figures:
        alone, whole = each.driver / each.sink, (each.ready + each.driver) / each.sink
        name = entrant.name if each.size == SIZES[0] else ""
        rates = f"{each.rate(each.driver):>13,.0f}{each.rate(each.sink):>10,.0f}"
        short = f"  below {GOAL[1]}" if each.size == GOAL[0] and alone < GOAL[1] else ""
        print(f"  {name:<32}{each.size:>6,}{rates}{alone:>8.2f}{whole:>11.2f}{short}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sinks", nargs="*", help="only these (sqlite, postgres, mongo, clickhouse)")
    main(parser.parse_args().sinks)
