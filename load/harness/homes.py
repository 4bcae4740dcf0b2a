"""The databases of a load run: one server for each sink, and in it a place of its own for each run.

Takes the name of a sink, or the URL of a server that is there; gives the section of the gateway's
configuration that leads to an empty place, and what can befall it, as contexts: inside something is wrong,
afterwards it is healed. Servers are those of the tests.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from harness.faults import Fault, of_a_file, of_a_server, slow

_VARIABLES = {"postgres": "POSTGRES_DSN", "mongo": "MONGO_URL", "clickhouse": "CLICKHOUSE_URL"}
_CLASSES = {"postgres": "PostgresServer", "mongo": "MongoServer", "clickhouse": "ClickHouseServer"}


@dataclass
class Place:
    """``section`` is that of the gateway's configuration, ``where`` is for usage_rows.py, ``faults`` are what
    can befall this one: ``killed``, ``frozen``, ``slow``."""

    section: Mapping[str, Any]
    where: Mapping[str, Any]
    faults: Mapping[str, Fault] = field(default_factory=dict)


@dataclass
class Home:
    """``server`` is one of the tests' servers, started; None for sqlite. ``told``: what it says that it is,
    for the result, where a stand-in is to be known as one."""

    sink: str
    told: str
    server: Any = None

    @property
    def pid(self) -> int | None:
        """Of a server that is ours to watch."""
        return int(self.server.pid) if self.server is not None and self.server.is_ours else None

    @asynccontextmanager
    async def place(self, folder: Path, by_wire: bool = False) -> AsyncIterator[Place]:
        """An empty place, gone afterwards. ``by_wire``: a proxy stands before the server, so that it can be
        slow; else it can be killed and frozen."""
        if self.server is None:
            path = folder / "data" / "usage.db"
            section = {"path": str(path)}
            yield Place(section, {"sink": self.sink, **section}, of_a_file(path))
            return
        async with _OWN[self.sink](self.server, f"load_{secrets.token_hex(6)}") as own:
            address = _url(self.server)
            where = {"sink": self.sink, **own(address)}
            if not by_wire:
                yield Place(own(address), where, of_a_server(self.server))
                return
            async with _proxy(address, self.server.port) as proxy:
                yield Place(own(_through(address, proxy.port)), where, {"slow": lambda: slow(proxy)})


@asynccontextmanager
async def home(sink: str, url: str | None = None) -> AsyncIterator[Home]:
    """The server of ``sink``, or the one at ``url``. Raises ``ServerMissing`` (of the tests' servers)."""
    if sink == "sqlite":
        yield Home(sink, f"SQLite {sqlite3.sqlite_version}")
        return
    if url:
        os.environ[_VARIABLES[sink]] = url
    server = getattr(importlib.import_module(f"servers.{sink}"), _CLASSES[sink]).find()
    await asyncio.to_thread(server.start)
    try:
        told = await asyncio.to_thread(_ASK[sink], server)
        yield Home(sink, told if server.is_ours else f"{told}, the caller's", server)
    finally:
        await asyncio.to_thread(server.stop)


# --- what they are


def _postgres_told(server: Any) -> str:
    async def ask() -> str:
        connection = await importlib.import_module("asyncpg").connect(server.dsn)
        try:
            return str(await connection.fetchval("SHOW server_version"))
        finally:
            await connection.close()

    return f"PostgreSQL {asyncio.run(ask())}"


def _mongo_told(server: Any) -> str:
    """FerretDB speaks MongoDB's protocol, and tells a version of MongoDB's beside its own, if any."""
    ours = importlib.import_module("servers.mongo").VERSION if server.is_ours else "unknown"
    with importlib.import_module("pymongo").MongoClient(server.url) as client:
        built = client.admin.command("buildInfo")
    if not any(name.lower().startswith("ferretdb") for name in built):
        return f"MongoDB {built['version']}"
    own = built.get("ferretdbVersion", "unknown")
    return f"FerretDB {ours if own == 'unknown' else own}, in place of MongoDB"


def _clickhouse_told(server: Any) -> str:
    bridge = " (chdb) behind the tests' HTTP bridge" if server.is_ours else ""
    return f"ClickHouse {server.run('SELECT version()').strip()}{bridge}"


_ASK: Mapping[str, Callable[[Any], str]] = {
    "postgres": _postgres_told,
    "mongo": _mongo_told,
    "clickhouse": _clickhouse_told,
}


# --- places


Own: TypeAlias = Callable[[str], dict[str, Any]]
"""Makes of the server's URL the options of one place in it."""


@asynccontextmanager
async def _postgres(server: Any, name: str) -> AsyncIterator[Own]:
    asyncpg = importlib.import_module("asyncpg")

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(server.dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    await run(f"CREATE SCHEMA {name}")
    try:
        yield lambda url: {"dsn": url, "table": f"{name}.usage_logs"}
    finally:
        await run(f"DROP SCHEMA {name} CASCADE")


@asynccontextmanager
async def _mongo(server: Any, name: str) -> AsyncIterator[Own]:
    pymongo = importlib.import_module("pymongo")

    def drop() -> None:
        with pymongo.MongoClient(server.url) as client:
            client.drop_database(name)

    try:
        yield lambda url: {"uri": url, "database": name}
    finally:
        await asyncio.to_thread(drop)


@asynccontextmanager
async def _clickhouse(server: Any, name: str) -> AsyncIterator[Own]:
    await asyncio.to_thread(server.run, f"CREATE DATABASE {name}")
    try:
        yield lambda url: {"url": url, "database": name}
    finally:
        await asyncio.to_thread(server.run, f"DROP DATABASE {name} SYNC")


_OWN: Mapping[str, Callable[[Any, str], AbstractAsyncContextManager[Own]]] = {
    "postgres": _postgres,
    "mongo": _mongo,
    "clickhouse": _clickhouse,
}


def _url(server: Any) -> str:
    return str(server.dsn if server.name == "postgres" else server.url)


def _through(url: str, port: int) -> str:
    """The same by way of a proxy, which asks no other server of the same set."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()


def _proxy(url: str, port: int) -> AbstractAsyncContextManager[Any]:
    proxy: AbstractAsyncContextManager[Any] = importlib.import_module("servers.proxy").Proxy(
        port, urlsplit(url).hostname or "127.0.0.1"
    )
    return proxy
