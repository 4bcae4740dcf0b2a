"""ClickHouse's tables: made, brought up to date, or found to be somebody else's.

Takes a way to run statements; gives nothing back, or raises ``SinkFatal``. The version stands in the table's
comment, so that it comes and goes with the table in one step. Every statement may be repeated, and several
processes may run them at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any, Protocol

from .errors import SinkFatal
from .record import COLUMNS
from .statements import statements

SCHEMA_VERSION = 1
BOOTS = "usage_boots"
TYPES: Mapping[str, str] = {
    "id": "UUID",
    "request_id": "String",
    "timestamp": "DateTime64(6, 'UTC')",
    "endpoint": "String",
    "status": "String",
    "end_reason": "String",
    "boot_id": "Nullable(UUID)",
    "seq": "Int64",
    "api_key_id": "Nullable(String)",
    "user_id": "Nullable(String)",
    "route": "Nullable(String)",
    "provider": "Nullable(String)",
    "model": "Nullable(String)",
    "status_code": "Nullable(Int32)",
    "error_code": "Nullable(String)",
    "error_message": "Nullable(String)",
    "stream": "Bool",
    "prompt_tokens": "Nullable(Int64)",
    "completion_tokens": "Nullable(Int64)",
    "total_tokens": "Nullable(Int64)",
    "cached_tokens": "Nullable(Int64)",
    "reasoning_tokens": "Nullable(Int64)",
    "usage_source": "String",
    "cost": "Nullable(Decimal(18, 9))",
    "latency_ms": "Nullable(Float64)",
    "ttft_ms": "Nullable(Float64)",
    "tags": "Nullable(String)",
}
"""What is sent, per column. Whether the table has it as LowCardinality is the table's affair."""

_SQL = statements("clickhouse")
_VERSION = re.compile(r"\bschema (\d+)")
_LOW_CARDINALITY = re.compile(r"^LowCardinality\((.*)\)$")


class Database(Protocol):
    """What the schema needs of a connection."""

    async def fetch(self, sql: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows that ``sql`` selects. Raises ``SinkError``."""
        ...

    async def execute(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        """Run ``sql``. Raises ``SinkError``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Which tables, and how they are made. ``table`` and ``cluster`` are identifiers that were checked."""

    table: str = "usage_logs"
    is_replicated: bool = False
    cluster: str | None = None
    retention_days: int | None = None

    @property
    def view(self) -> str:
        """The name of the view in which each row is there once."""
        return f"{self.table}_once"

    def statement(self, name: str, **more: str) -> str:
        """The statement ``name`` of the file, with our names filled in."""
        kind = "ReplicatedReplacingMergeTree" if self.is_replicated else "ReplacingMergeTree"
        return Template(_SQL[name]).substitute(
            {
                "table": f"`{self.table}`",
                "view": f"`{self.view}`",
                "on_cluster": f"ON CLUSTER '{self.cluster}'" if self.cluster else "",
                "engine": f"{kind}(is_whole)",
                "boots_engine": f"{kind}(is_closed)",
                "version": SCHEMA_VERSION,
                "days": self.retention_days,
                **more,
            }
        )

    async def migrate(self, database: Database) -> None:
        """Make what is missing, then ``check``. Somebody else's table is left alone."""
        found = await self._tables(database)
        if self.table in found:
            await self._check(database, found[self.table])
        else:
            await database.execute(self.statement("create_table"))
        for name, statement in ((BOOTS, "create_boots"), (self.view, "create_view")):
            if name not in found:
                await database.execute(self.statement(statement))
        await self.check(database)
        await self._set_retention(database)

    async def check(self, database: Database) -> None:
        """Raise ``SinkFatal`` unless rows can be written and read as this program does it."""
        found = await self._tables(database)
        for name in (self.table, BOOTS):
            if name not in found:
                raise SinkFatal("schema_missing", f"there is no table {name}; run: tallygate migrate")
        await self._check(database, found[self.table])

    async def _check(self, database: Database, table: _Table) -> None:
        if table.version > SCHEMA_VERSION:
            raise SinkFatal(
                "schema_newer",
                f"{self.table} has schema {table.version}, this program knows {SCHEMA_VERSION}",
            )
        columns = await database.fetch(_SQL["describe_columns"], {"table": self.table})
        found = {(name, _LOW_CARDINALITY.sub(r"\1", kind)) for name, kind in columns}
        if strange := found.symmetric_difference(TYPES.items()):
            names = ", ".join(sorted({name for name, _ in strange}))
            raise SinkFatal("schema_differs", f"{self.table} has other columns than this program's ({names})")
        if not table.engine.endswith("ReplacingMergeTree"):
            raise SinkFatal("schema_differs", f"{self.table} is a {table.engine}, which keeps a row twice")

    async def _set_retention(self, database: Database) -> None:
        """Only where it is not so already: to change it makes the server look at every part."""
        if self.retention_days is None:
            return
        table = (await self._tables(database))[self.table]
        if f"+ toIntervalDay({self.retention_days})" not in table.definition:
            await database.execute(self.statement("set_retention"))

    async def _tables(self, database: Database) -> dict[str, _Table]:
        rows = await database.fetch(_SQL["describe_tables"], {"table": self.table, "view": self.view})
        return {name: _Table(engine, definition, comment) for name, engine, definition, comment in rows}


@dataclass(frozen=True, slots=True)
class _Table:
    engine: str
    definition: str
    comment: str

    @property
    def version(self) -> int:
        """0 for a table that somebody made by hand; its columns decide."""
        found = _VERSION.search(self.comment)
        return int(found.group(1)) if found else 0


assert tuple(TYPES) == COLUMNS
