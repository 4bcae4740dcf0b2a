"""A place of its own in a PostgreSQL server for one test, and what a test does there around the sink.

Takes a server and the name of a schema in it; gives sinks that write there, and rows read by the bare driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from backends.postgres import PostgresOptions, PostgresSink
from backends.record import Boot, UsageRecord

from .base import START_S
from .postgres import PostgresServer
from .proxy import Proxy


class OwnSchema:
    """A schema. Statements find its tables without a prefix, and those of no other test."""

    def __init__(self, server: PostgresServer, name: str, port: int | None = None) -> None:
        self.server = server
        self.name = name
        self.port = port
        """Of what stands between sink and server for the whole test, if anything does."""

    # --- sinks

    def dsn(self, port: int | None = None) -> str:
        """Of the superuser."""
        parts = urlsplit(self.server.dsn)
        if port is None:
            return parts.geturl()
        return parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}").geturl()

    def options(self, port: int | None = None, **more: Any) -> PostgresOptions:
        """Options for this schema; by way of ``port`` when something is in between."""
        values = {"dsn": self.dsn(port or self.port), "table": f"{self.name}.usage_logs", **more}
        return PostgresOptions.model_validate(values)

    def opened(self, port: int | None = None, **more: Any) -> AbstractAsyncContextManager[PostgresSink]:
        """A sink on this schema."""
        return PostgresSink.open(self.options(port, **more))

    @asynccontextmanager
    async def proxy(self) -> AsyncIterator[Proxy]:
        """A wire to the server that can fail."""
        async with Proxy(self.server.port) as proxy:
            yield proxy

    async def restart(self) -> None:
        """Start the server again; returns once it answers, also by way of what is in between."""
        await asyncio.to_thread(self.server.restart)
        async with asyncio.timeout(START_S):
            while not await self._answers():  # noqa: ASYNC110  # a server has no event
                await asyncio.sleep(0.05)

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.dsn(self.port), statement_cache_size=0)
        except (OSError, asyncpg.PostgresError):
            return False
        try:
            return bool(await connection.fetchval("SELECT true"))
        except asyncpg.PostgresError:
            return False
        finally:
            connection.terminate()

    # --- around the sink

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        """The bare driver."""
        connection = await asyncpg.connect(self.server.dsn, server_settings={"search_path": self.name})
        try:
            yield connection
        finally:
            await connection.close()

    async def run(self, sql: str) -> None:
        """Run one statement, or several."""
        async with self.connected() as connection:
            await connection.execute(sql)

    async def fetch(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of an answer; none from a table that is not there."""
        async with self.connected() as connection:
            try:
                return [dict(row) for row in await connection.fetch(sql, *values)]
            except asyncpg.UndefinedTableError:
                return []

    async def rows(self) -> list[UsageRecord]:
        """Every stored row."""
        return [UsageRecord(**row) for row in await self.fetch("SELECT * FROM usage_logs")]

    async def ids(self) -> list[UUID]:
        """Of every stored row, in their order."""
        return [row["id"] for row in await self.fetch("SELECT id FROM usage_logs ORDER BY id")]

    async def boots(self) -> list[Boot]:
        """Every stored boot."""
        found = await self.fetch("SELECT * FROM usage_boots")
        return [Boot(id=row.pop("boot_id"), **row) for row in found]

    async def tables(self) -> list[str]:
        """The names of the tables in the schema, sorted."""
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename"
        return [row["tablename"] for row in await self.fetch(sql, self.name)]

    async def backends(self, count: int) -> set[int]:
        """The server's processes for connections of sinks, once there are ``count``: that of a closed sink,
        in this test or the one before, goes a moment later."""
        sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tallygate'"
        async with asyncio.timeout(START_S):
            while len(found := await self.fetch(sql)) != count:
                pass
        return {row["pid"] for row in found}
