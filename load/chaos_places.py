"""The databases of `make chaos`, each with all that can befall it.

Takes the name of a sink; gives its server, started, a wire to it that can fail, the section of the gateway's
configuration that leads there, and faults as contexts: inside, something is wrong, afterwards it is healed.
Servers are those of the tests.
"""

from __future__ import annotations

import asyncio
import importlib
import resource
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

Fault: TypeAlias = Callable[[], AbstractAsyncContextManager[None]]
SINKS = ("sqlite", "postgres", "mongo", "clickhouse")
BUSY_S = 0.2


@dataclass
class Place:
    """``section`` is that of the gateway's configuration, ``where`` is for usage_rows.py, ``faults`` are
    those of the database and the wire, by name. ``down``: the one that is as good as any."""

    sink: str
    section: Mapping[str, Any]
    where: Mapping[str, Any]
    faults: dict[str, Fault] = field(default_factory=dict)

    @property
    def down(self) -> Fault:
        """No write succeeds until it is over."""
        return self.faults["locked" if self.sink == "sqlite" else "refused"]


@asynccontextmanager
async def opened(sink: str, folder: Path, rng: Random) -> AsyncIterator[Place]:
    """The database of ``sink``, empty. Raises ``ServerMissing`` (of the tests' servers)."""
    if sink == "sqlite":
        path = str(folder / "data" / "usage.db")
        section = {"path": path, "busy_timeout_s": BUSY_S}
        yield Place(sink, section, {"sink": sink, "path": path}, {"locked": lambda: locked(Path(path))})
        return
    server = _server(sink)
    await asyncio.to_thread(server.start)
    proxy_class = importlib.import_module("servers.proxy").Proxy
    try:
        async with proxy_class(server.port) as proxy:
            section, where = _addresses(sink, server, proxy.port)
            yield Place(sink, section, {"sink": sink, **where}, _faults(server, proxy, rng))
    finally:
        await asyncio.to_thread(server.stop)


def _server(sink: str) -> Any:
    kinds = {"postgres": "PostgresServer", "mongo": "MongoServer", "clickhouse": "ClickHouseServer"}
    server = getattr(importlib.import_module(f"servers.{sink}"), kinds[sink]).find()
    if not server.is_ours:
        raise SystemExit(f"{sink}: chaos kills its server; it does not do that to one that a variable names")
    return server


def _addresses(sink: str, server: Any, port: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Through the wire for the gateway, around it for whoever judges."""
    if sink == "postgres":
        return {"dsn": server.dsn_of("tallygate", port=port)}, {"dsn": server.dsn, "table": "usage_logs"}
    if sink == "mongo":
        database = {"database": "chaos"}
        return {"uri": server.url_through(port), **database}, {"uri": server.url, **database}
    database = {"database": "default"}
    return {"url": server.url_through(port), **database}, {"url": server.url, **database}


# --- faults


def _faults(server: Any, proxy: Any, rng: Random) -> dict[str, Fault]:
    def wire(begin: Callable[[], None]) -> Fault:
        return lambda: _wire(proxy, begin)

    return {
        "server_killed": lambda: _killed(server),
        "server_frozen": lambda: _frozen(server),
        "refused": wire(proxy.refuse),
        "black_hole": wire(proxy.black_hole),
        "reset": wire(proxy.reset),
        "slow": wire(lambda: proxy.delay(rng.uniform(0.05, 0.5))),
        "throttled": wire(lambda: proxy.throttle(rng.uniform(2000, 20000))),
        "cut": wire(lambda: proxy.cut_after(rng.randrange(20000), replies=rng.random() < 0.5)),
        "replies_lost": wire(lambda: proxy.drop_reply(times=rng.randrange(1, 6))),
    }


@asynccontextmanager
async def _killed(server: Any) -> AsyncIterator[None]:
    await asyncio.to_thread(server.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(server.restart)


@asynccontextmanager
async def _frozen(server: Any) -> AsyncIterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@asynccontextmanager
async def _wire(proxy: Any, begin: Callable[[], None]) -> AsyncIterator[None]:
    begin()
    try:
        yield
    finally:
        await proxy.heal()


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Another process than the gateway holds the write lock of a SQLite file: ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        while not _holds(connection):  # noqa: ASYNC110  # a lock has no event
            await asyncio.sleep(0.01)
        yield
        connection.rollback()


def _holds(connection: sqlite3.Connection) -> bool:
    with suppress(sqlite3.OperationalError):
        connection.execute("BEGIN IMMEDIATE")
        return True
    return False


@asynccontextmanager
async def disk_full(pid: int) -> AsyncIterator[None]:
    """The process ``pid`` can write to no file any more; pipes and sockets are well."""
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, most))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
