"""One test's database on a ClickHouse server, the sink on it, and what is there, read around the sink."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from backends.clickhouse import ClickHouseOptions, ClickHouseSink
from backends.record import COLUMNS, Batch, Boot, UsageRecord
from backends.sink import Committed
from backends.testing import make_batch

from .clickhouse import ClickHouseServer
from .proxy import Proxy

_WHOLE_NUMBERS = (
    "seq",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
)


@dataclass(frozen=True)
class OwnDatabase:
    """``name`` on ``server``."""

    server: ClickHouseServer
    name: str

    # --- the sink on it

    def options(self, *, port: int | None = None, **more: Any) -> ClickHouseOptions:
        """Options for a sink, through ``port`` where a proxy listens."""
        url = self.server.url if port is None else self.server.url_through(port)
        return ClickHouseOptions.model_validate({"url": url, "database": self.name, **more})

    def opened(self, **more: Any) -> AbstractAsyncContextManager[ClickHouseSink]:
        """A sink with those options."""
        return ClickHouseSink.open(self.options(**more))

    async def write(self, batch: Batch, **more: Any) -> Committed:
        """What a sink of its own answers to ``batch``."""
        async with self.opened(**more) as sink:
            return await sink.write(batch)

    def proxy(self) -> Proxy:
        """A proxy in front of the server."""
        return Proxy(self.server.port, self.server.host)

    # --- around it

    def run(self, sql: str) -> str:
        """What the server answers to ``sql``."""
        return self.server.run(sql, database=self.name)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows that ``sql`` selects."""
        return self.server.query(sql, database=self.name)

    def tables(self) -> set[str]:
        """The names of tables and views."""
        return {
            row["name"]
            for row in self.query("SELECT name FROM system.tables WHERE database = currentDatabase()")
        }

    def rows(self, table: str = "usage_logs") -> list[UsageRecord]:
        """Every row as it lies there, also those that a merge would remove."""
        return (
            [_record(row) for row in self.query(f"SELECT * FROM {table}")] if table in self.tables() else []
        )

    def boots(self) -> list[Boot]:
        """Every boot, once."""
        return [_boot(row) for row in self.query("SELECT * FROM usage_boots FINAL")]

    async def forget_tokens(self, sink: ClickHouseSink, batch: Batch) -> None:
        """Write ``batch``, and then so much (three rows) that the table no longer knows it by its token.
        Merges have stopped, so that what comes twice stays there twice."""
        await sink.ping()
        self.run("SYSTEM STOP MERGES usage_logs")
        self.run("ALTER TABLE usage_logs MODIFY SETTING non_replicated_deduplication_window = 2")
        for each in (batch, *(make_batch(1) for _ in range(3))):
            await sink.write(each)


def ids(rows: Iterable[UsageRecord]) -> set[UUID]:
    """The ids of ``rows``."""
    return {row.id for row in rows}


def sorted_ids(rows: Sequence[UsageRecord]) -> list[UUID]:
    """The ids of ``rows``, as often as they are there."""
    return sorted(row.id for row in rows)


def _record(row: dict[str, Any]) -> UsageRecord:
    numbers = {name: None if row[name] is None else int(row[name]) for name in _WHOLE_NUMBERS}
    values: dict[str, Any] = {
        **{name: row[name] for name in COLUMNS},
        **numbers,
        "id": UUID(row["id"]),
        "boot_id": UUID(row["boot_id"]) if row["boot_id"] else None,
        "timestamp": _moment(row["timestamp"]),
        "cost": None if row["cost"] is None else Decimal(row["cost"]),
    }
    return UsageRecord(**values)


def _boot(row: dict[str, Any]) -> Boot:
    return Boot(
        id=UUID(row["boot_id"]),
        started_at=_moment(row["started_at"]),
        closed_at=_moment(row["closed_at"]) if row["closed_at"] else None,
        last_seq=None if row["last_seq"] is None else int(row["last_seq"]),
        abandoned=row["abandoned"],
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
