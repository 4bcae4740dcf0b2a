"""The tables of the PostgreSQL sink: made, checked, partitioned and emptied of what is too old.

Takes a connection of the driver's and names; gives statements with the names in them, and a schema that fits
or ``SinkFatal``. Every process may do all of it at any time: a lock in the database lets one at a time. The
schema's version stands in the table's comment, so that it goes wherever the table goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from .errors import SinkFatal
from .statements import statements

SCHEMA_VERSION = 1
BOOTS = "usage_boots"
DELETE_ROWS = 5000
"""At most so many old rows go at once, where there are no partitions to drop."""

_SQL = statements("postgres")
_LABEL = "Tallygate usage rows, schema {}"
_VERSION = re.compile(re.escape(_LABEL.format("")) + r"(\d+)")
_KINDS = {"r": "not partitioned", "p": "partitioned"}
_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("id", "boot_id"), "uuid"),
    **dict.fromkeys(("request_id", "endpoint", "status", "end_reason", "usage_source"), "text"),
    **dict.fromkeys(("api_key_id", "user_id", "route", "provider", "model"), "text"),
    **dict.fromkeys(("error_code", "error_message"), "text"),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), "bigint"),
    **dict.fromkeys(("seq", "cached_tokens", "reasoning_tokens"), "bigint"),
    **dict.fromkeys(("latency_ms", "ttft_ms"), "double precision"),
    "timestamp": "timestamp with time zone",
    "status_code": "integer",
    "stream": "boolean",
    "cost": "numeric(18,9)",
    "tags": "json",
}
_COLUMNS = frozenset(f"{name} {kind}" for name, kind in _TYPES.items())


class Connection(Protocol):
    """The part of the driver's connection that is used here, and how to be in a transaction."""

    async def execute(self, sql: str, *values: Any) -> str: ...

    async def fetch(self, sql: str, *values: Any) -> list[Any]: ...

    async def fetchrow(self, sql: str, *values: Any) -> Any: ...

    async def fetchval(self, sql: str, *values: Any) -> Any: ...

    def whole(self) -> AbstractAsyncContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables for the rows called ``table``, perhaps ``schema.table``, and beside it the boots."""

    table: str
    is_partitioned: bool = False
    retention_days: int | None = None

    # --- names

    @property
    def rows(self) -> str:
        """The name of the rows' table, quoted."""
        return _quoted(self.table)

    @property
    def boots(self) -> str:
        """The name of the boots' table, quoted."""
        return _quoted(self._beside(BOOTS))

    def statement(self, name: str, **parts: str) -> str:
        """The statement ``name`` with this schema's names in it."""
        key = "id, timestamp" if self.is_partitioned else "id"
        return _SQL[name].format(rows=self.rows, boots=self.boots, key=key, **parts)

    def _beside(self, name: str) -> str:
        return ".".join([*self.table.split(".")[:-1], name])

    def _partition(self, month: str) -> str:
        return f"{self.table}_{month}"

    # --- making and checking

    async def ensure(self, connection: Connection, *, may_change: bool) -> None:
        """Return if the tables are there and fit; make what is missing if ``may_change``."""
        if await self._fits(connection):
            return
        if not may_change:
            raise SinkFatal(
                "schema_missing", f"the tables for {self.rows} are not set up; run `tallygate migrate`"
            )
        async with connection.whole():
            await connection.execute(self.statement("lock_schema"), self.boots)
            await self._create(connection)
            if not await self._fits(connection):
                raise SinkFatal("schema_missing", f"{self.rows} was made and is not there")

    async def _fits(self, connection: Connection) -> bool:
        """False if a table is missing."""
        found = await connection.fetchrow(_SQL["describe_rows"], self.rows)
        if found is None:
            return False
        self._check(found["comment"], found["kind"], found["columns"])
        return bool(await connection.fetchval(_SQL["has_table"], self.boots))

    def _check(self, comment: str | None, kind: str, columns: Iterable[str]) -> None:
        version = _VERSION.search(comment or "")
        if version and int(version[1]) > SCHEMA_VERSION:
            knows = f"this program knows {SCHEMA_VERSION}"
            raise SinkFatal("schema_newer", f"{self.rows} has schema {version[1]}, {knows}")
        if strange := _COLUMNS.symmetric_difference(columns):
            names = ", ".join(sorted({each.partition(" ")[0] for each in strange}))
            raise SinkFatal("schema_differs", f"{self.rows} has other columns than this program's ({names})")
        if kind != ("p" if self.is_partitioned else "r"):
            is_so = _KINDS.get(kind, "no table")
            raise SinkFatal("schema_differs", f"{self.rows} is {is_so}, partition_by says otherwise")

    async def _create(self, connection: Connection) -> None:
        await connection.execute(self.statement("create_boots"))
        if await connection.fetchval(_SQL["has_table"], self.rows):
            return
        partitioning = " PARTITION BY RANGE (timestamp)" if self.is_partitioned else ""
        await connection.execute(self.statement("create_rows", partitioning=partitioning))
        for name in _SQL:
            if name.startswith("index_"):
                await connection.execute(self.statement(name))
        await connection.execute(self.statement("label_rows", label=_LABEL.format(SCHEMA_VERSION)))

    # --- months

    async def make_partitions(self, connection: Connection, moments: Iterable[datetime]) -> None:
        """Partitions for the months (UTC) of ``moments``, where there are none of that name."""
        months = {moment.astimezone(UTC).strftime("%Y%m"): moment for moment in moments}
        async with connection.whole():
            await connection.execute(self.statement("lock_schema"), self.boots)
            known = await self._partitions(connection)
            for month in sorted(months.keys() - known):
                start, end = _bounds(month)
                names = {"partition": _quoted(self._partition(month)), "start": start, "end": end}
                await connection.execute(self.statement("create_partition", **names))

    async def _partitions(self, connection: Connection) -> set[str]:
        """The months of our partitions. What has another name somebody else made, and keeps."""
        ours = re.compile(re.escape(self._partition("").rpartition(".")[2]) + r"(\d{6})")
        found = await connection.fetch(_SQL["list_partitions"], self.rows)
        return {match[1] for row in found if (match := ours.fullmatch(row["relname"]))}

    # --- retention

    async def retire(self, connection: Connection, now: datetime) -> bool:
        """Remove rows older than ``retention_days``; whether there may be more. Does nothing while another
        process does it, and gives up where somebody's query is in the way."""
        assert self.retention_days
        before = now - timedelta(days=self.retention_days)
        async with connection.whole():
            await connection.execute("SET LOCAL lock_timeout = '1s'")
            if not await connection.fetchval(_SQL["try_lock_schema"], self.boots):
                return False
            if self.is_partitioned:
                await self._drop_partitions(connection, before)
                return False
            answer = await connection.execute(self.statement("delete_old_rows"), before, DELETE_ROWS)
            return affected(answer) == DELETE_ROWS

    async def _drop_partitions(self, connection: Connection, before: datetime) -> None:
        for month in sorted(await self._partitions(connection)):
            if datetime.fromisoformat(_bounds(month)[1]) <= before:
                name = _quoted(self._partition(month))
                await connection.execute(self.statement("drop_partition", partition=name))


def affected(answer: str) -> int:
    """How many rows a command tag, such as ``INSERT 0 5``, speaks of."""
    return int(answer.rpartition(" ")[2])


def _quoted(name: str) -> str:
    """``name`` is an identifier, or two with a dot between, of letters, digits and underscores."""
    return ".".join(f'"{part}"' for part in name.split("."))


def _bounds(month: str) -> tuple[str, str]:
    """The first moment of ``month`` (``YYYYMM``), and the first one behind it."""
    number = int(month[:4]) * 12 + int(month[4:]) - 1
    start, end = (f"{each // 12:04}-{each % 12 + 1:02}-01T00:00:00+00:00" for each in (number, number + 1))
    return start, end
