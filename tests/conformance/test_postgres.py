"""PostgreSQL: the exported suite on a real server, directly, partitioned, and behind a pooler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from servers.base import need_ours
from servers.postgres_database import OwnSchema

from backends.postgres import PostgresOptions, PostgresSink
from backends.record import Boot, UsageRecord
from backends.testing import SinkConformance

pytestmark = pytest.mark.timeout(300)  # the first run on a machine installs the server


class PostgresCases(SinkConformance):
    sink_cls = PostgresSink
    sink_name = "postgres"
    fault_modes = frozenset({"down"})
    more: ClassVar[dict[str, Any]] = {}
    """Options beside the address."""

    @pytest.fixture(autouse=True)
    def _own_schema(self, postgres: OwnSchema) -> None:
        self.own = postgres

    def make_options(self) -> PostgresOptions:
        return self.own.options(**self.more)

    async def rows_in_sink(self) -> Sequence[UsageRecord]:
        return await self.own.rows()

    async def boots_in_sink(self) -> Sequence[Boot]:
        return await self.own.boots()

    @asynccontextmanager
    async def fault(self, mode: str) -> AsyncIterator[None]:
        assert mode == "down"
        need_ours(self.own.server)
        await asyncio.to_thread(self.own.server.kill)
        try:
            yield
        finally:
            await self.own.restart()


class TestPostgres(PostgresCases):
    pass


class TestPostgresPartitioned(PostgresCases):
    more: ClassVar[dict[str, Any]] = {"partition_by": "month", "retention_days": 36_500}


class TestPostgresBehindAPooler(PostgresCases):
    more: ClassVar[dict[str, Any]] = {"pgbouncer": True}

    @pytest.fixture(autouse=True)
    def _by_way_of_the_pooler(self, _own_schema: None, pooler_port: int) -> None:
        self.own.port = pooler_port
