"""Every durable sink as the process tests see it: where its rows are, and how it is made to fail.

A fixture gives a place of the test's own in a server that all tests share, behind a wire that can fail; for
sqlite it is a file. Rows are read around the gateway, by ``load/usage_rows.py``, which knows nothing of it.
An environment has the drivers of its own sinks and no others.
"""

from __future__ import annotations

import asyncio
import importlib
import resource
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from servers import base
from servers.places import PLACES
from servers.proxy import Proxy

LOAD = Path(__file__).parents[2] / "load"
FULL = ("sqlite", "postgres")
"""Sinks on which every cell of the table is tested; on the others one cell of each row."""
OTHERS = ("mongo-motor", "clickhouse")
NAMES = tuple(name for name in (*FULL, *OTHERS) if find_spec(PLACES[name].driver or ""))


@dataclass
class Durable:
    """``sections`` are those of the configuration that say where rows go. ``server`` and ``proxy`` are None
    for sqlite. ``down`` is a context: inside, another process holds the file's lock, or nobody listens."""

    name: str
    sections: Mapping[str, Any]
    where: Mapping[str, Any]
    down: Callable[[], AbstractAsyncContextManager[None]]
    usage_rows: ModuleType
    server: Any = None
    proxy: Proxy | None = None
    run: Callable[[str], Any] | None = field(default=None, repr=False)

    @property
    def sink(self) -> str:
        return PLACES[self.name].sink

    async def rows(self) -> list[Any]:
        """Every stored row, as the database has it."""
        return await asyncio.to_thread(self.usage_rows.read_rows, self.where)

    async def ids(self) -> Counter[UUID]:
        """How often each id is stored."""
        return Counter(UUID(row.id) for row in await self.rows())

    async def row(self, row_id: UUID) -> Any:
        """The one row of a call."""
        (row,) = [row for row in await self.rows() if row.id == str(row_id)]
        return row

    def strategy(self, kind: str = "batch") -> dict[str, Any]:
        """Sections for a configuration with this strategy."""
        return {**self.sections, "log_writer_strategy": f"{kind}:{self.sink}"}


def load_module(name: str) -> ModuleType:
    """A module of the folder ``load``."""
    if str(LOAD) not in sys.path:
        sys.path.append(str(LOAD))
    return importlib.import_module(name)


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], Any]]:
    """``servers(sink)`` is a running server, started once for all tests."""
    kinds = {"postgres": "PostgresServer", "mongo": "MongoServer", "clickhouse": "ClickHouseServer"}
    started: dict[str, Any] = {}
    with ExitStack() as stack:

        def server(sink: str) -> Any:
            if sink not in started:
                find = getattr(importlib.import_module(f"servers.{sink}"), kinds[sink]).find
                running = base.running(find)
                started[sink] = next(running)
                stack.callback(lambda: next(running, None))
            return started[sink]

        yield server


@pytest.fixture
def disk_full() -> Callable[[int], AbstractAsyncContextManager[None]]:
    """``async with disk_full(pid)``: that process can write to no file any more."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("not offered: only Linux limits the files of another process")
    full: Callable[[int], AbstractAsyncContextManager[None]] = load_module("chaos_places").disk_full
    return full


@pytest.fixture(params=NAMES)
def sink_name(request: pytest.FixtureRequest) -> str:
    """A durable sink."""
    name: str = request.param
    return name


@pytest.fixture
async def durable(sink_name: str, servers: Any, tmp_path: Path, locked: Any) -> AsyncIterator[Durable]:
    """See ``Durable``."""
    usage_rows = load_module("usage_rows")
    if sink_name == "sqlite":
        path = tmp_path / "data" / "usage.db"
        sections = {"sinks": {"sqlite": {"path": str(path), "busy_timeout_s": 0.2}}}
        where = {"sink": "sqlite", "path": str(path)}
        yield Durable(sink_name, sections, where, lambda: _entered(locked(path)), usage_rows)
        return
    place, name = PLACES[sink_name], f"test_{uuid4().hex[:16]}"
    server = await asyncio.to_thread(servers, place.sink)
    async with (
        Proxy(server.port, getattr(server, "host", "127.0.0.1")) as proxy,
        _own(place.sink, server, name) as own,
    ):
        options = own.options(port=proxy.port, **place.more)
        given = {each: _plain(getattr(options, each)) for each in options.model_fields_set}
        where = {"sink": place.sink, **_around(place.sink, server, name)}
        yield Durable(
            sink_name,
            {"sinks": {place.sink: given}},
            where,
            lambda: _refused(proxy),
            usage_rows,
            server,
            proxy,
            own.run if hasattr(own, "run") else None,
        )


@asynccontextmanager
async def _own(sink: str, server: Any, name: str) -> AsyncIterator[Any]:
    """A place of the test's own in the server, gone afterwards."""
    if sink == "postgres":
        schema = importlib.import_module("servers.postgres_database").OwnSchema(server, name)
        await schema.run(f"CREATE SCHEMA {name}")
        yield schema
        await schema.run(f"DROP SCHEMA {name} CASCADE")
    elif sink == "mongo":
        database = importlib.import_module("servers.mongo_database").OwnDatabase(server, name)
        yield database
        await asyncio.to_thread(database.drop)
    else:
        own = importlib.import_module("servers.clickhouse_database").OwnDatabase(server, name)
        await asyncio.to_thread(server.run, f"CREATE DATABASE {name}")
        yield own
        await asyncio.to_thread(server.run, f"DROP DATABASE {name} SYNC")


def _around(sink: str, server: Any, name: str) -> dict[str, str]:
    if sink == "postgres":
        return {"dsn": server.dsn, "table": f"{name}.usage_logs"}
    return {"uri" if sink == "mongo" else "url": server.url, "database": name}


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@asynccontextmanager
async def _entered(context: Any) -> AsyncIterator[None]:
    with context:
        yield


@asynccontextmanager
async def _refused(proxy: Proxy) -> AsyncIterator[None]:
    proxy.refuse()
    try:
        yield
    finally:
        await proxy.heal()
