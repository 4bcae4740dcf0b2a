"""ClickHouse: usage rows in a ReplacingMergeTree, for those who keep very many of them.

Takes batches, one insert each and one more for every month that a batch reaches into; gives ``Committed``
once the server has the rows on its disk. Two lines keep a row from counting twice: the server knows a batch
by its token as long as the table's window reaches, and what comes later than that is one row for ``FINAL``,
for the view ``usage_logs_once`` and for this read side. The server does not tell which rows it knew, so
``new`` counts every row of a batch; only those that are in it several times are ``duplicates``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self, TypeVar
from uuid import UUID

from pydantic import ConfigDict, Field, SecretStr, field_validator

from . import clickhouse_queries as queries
from .clickhouse_driver import Database, is_address
from .clickhouse_schema import Schema
from .columns import by_month, columns_of, microseconds
from .errors import SinkFatal, SinkRetryable
from .numbers import NumberedRow, Run
from .record import Batch, Boot
from .sink import Capabilities, Committed, SinkOptions
from .usage_query import SummaryQuery, SummaryRow, UsagePage, UsageQuery

_CLOSE_S = 1.0
_IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
T = TypeVar("T")


class ClickHouseOptions(SinkOptions):
    """``url``: the HTTP interface, with user and password. ``replicated``: the tables are made as
    Replicated…; ``cluster``: on all servers of that cluster. ``retention_days``: rows older than that are
    removed; None leaves to the table whatever it has. ``migrate``: make and upgrade the tables when first
    needed. ``connect_timeout_s``: for a connection; ``timeout_s``: the longest silence of the server."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: SecretStr = SecretStr("http://localhost:8123")
    database: str = Field(default="default", pattern=r"^[\w.-]+$")
    table: str = Field(default="usage_logs", pattern=_IDENTIFIER)
    replicated: bool = False
    cluster: str | None = Field(default=None, pattern=r"^[\w.{}-]+$")
    retention_days: int | None = Field(default=None, ge=1, le=36_500)
    migrate: bool = True
    connect_timeout_s: float = Field(default=5.0, gt=0)
    timeout_s: float = Field(default=30.0, gt=0)

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: SecretStr) -> SecretStr:
        if not is_address(url.get_secret_value()):
            raise ValueError("is no address of a ClickHouse server; write http://USER:PASSWORD@HOST:8123")
        return url


class ClickHouseSink:
    """One client, made by the first call that needs it; each call is a task, so that ``abort`` can end it."""

    Options: ClassVar[type[SinkOptions]] = ClickHouseOptions
    capabilities: ClassVar[Capabilities] = Capabilities(dedup="eventual", atomic_batch=False)
    batching_defaults: ClassVar[Mapping[str, Any]] = {
        "max_rows": 10_000,
        "max_bytes": 16 * 1024 * 1024,
        "linger_s": 1.0,
        "flush_concurrency": 1,
        "attempt_timeout_s": 30.0,
        "batch_deadline_s": 300.0,
        "max_queue_rows": 100_000,
        "max_queue_bytes": 128 * 1024 * 1024,
    }

    def __init__(self, options: ClickHouseOptions) -> None:
        self._options = options
        self._schema = Schema(
            table=options.table,
            is_replicated=options.replicated,
            cluster=options.cluster,
            retention_days=options.retention_days,
        )
        self._database: Database | None = None
        self._is_checked = False
        self._is_ending = False
        self._preparing = asyncio.Lock()
        self._calls: set[asyncio.Task[Any]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, options: ClickHouseOptions) -> AsyncIterator[Self]:
        sink = cls(options)
        try:
            yield sink
        finally:
            await sink._close()

    async def write(self, batch: Batch) -> Committed:
        """As the contract says. A batch of one month is stored whole or not at all."""
        return await self._call(self._write, batch) if batch.rows else Committed(0)

    async def ping(self) -> None:
        """As the contract says."""
        await self._call(self._execute, self._schema.statement("probe"))

    def abort(self) -> None:
        """As the contract says. A request that reached the server may be carried out all the same."""
        self._is_ending = True
        for call in tuple(self._calls):
            call.cancel()

    async def record_boot(self, boot: Boot) -> None:
        values = {
            "boot_id": str(boot.id),
            "started_at": microseconds(boot.started_at),
            "closed_at": microseconds(boot.closed_at) if boot.closed_at else None,
            "last_seq": boot.last_seq,
            "abandoned": boot.abandoned,
        }
        await self._call(self._execute, self._schema.statement("record_boot"), values)

    async def migrate(self) -> None:
        """Make the tables or bring them up to date, whatever the options say. Raises as ``write`` does.
        May be repeated, and run by several processes at once."""
        await self._call(self._migrate)

    async def read_usage(self, query: UsageQuery) -> UsagePage:
        """As the contract says. Raises ``ValueError`` for a filter that is none of ``FILTER_COLUMNS``."""
        rows = queries.Rows(query)
        while rows.rest:
            rows.add(await self._call(self._fetch, *queries.rows_statement(rows.rest, self._schema)))
        return rows.page()

    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        """As the contract says. Raises ``ValueError`` for an unknown filter or group."""
        found = await self._call(self._fetch, *queries.summary_statement(query, self._schema))
        return queries.summary(found, query)

    async def read_boots(self) -> tuple[Boot, ...]:
        return queries.boots(await self._read("read_boots"))

    async def read_runs(self) -> tuple[Run, ...]:
        return queries.runs(await self._read("read_runs"))

    async def read_repeated(self, boot_id: UUID, limit: int) -> tuple[NumberedRow, ...]:
        found = await self._read("read_repeated", boot_id=str(boot_id), limit=limit)
        return tuple(NumberedRow(*row) for row in found)

    def pool(self) -> Mapping[str, int]:
        """Each request under way has a connection; how many more the driver keeps, it does not tell."""
        return {"in_use": len(self._calls)}

    # --- calls

    async def _call(self, work: Callable[..., Awaitable[T]], *given: Any) -> T:
        """What ``work`` returns. After ``abort`` it ends with ``SinkRetryable``."""
        self._refuse_when_ending()
        task: asyncio.Task[T] = asyncio.ensure_future(_coroutine(work, *given))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            return await task
        except asyncio.CancelledError:
            if self._is_ending and not _is_being_cancelled():
                raise SinkRetryable("aborted", "the call was ended", ambiguous=True) from None
            raise
        except SinkFatal:
            self._is_checked = False  # whoever mends it may do so by dropping the table
            raise

    def _refuse_when_ending(self) -> None:
        if self._is_ending:
            raise SinkRetryable("closing", "the sink is closing", ambiguous=False)

    async def _write(self, batch: Batch) -> Committed:
        columns = await asyncio.to_thread(columns_of, batch.rows)  # some 50 ms for ten thousand rows
        database = await self._ready()
        months = by_month(columns)
        for month, part in months.items():
            token = str(batch.id) if len(months) == 1 else f"{batch.id}-{month}"
            await database.insert(self._options.table, part, token)
        new = len({row.id for row in batch.rows})
        return Committed(new, len(batch.rows) - new)

    async def _read(self, name: str, **values: Any) -> Sequence[Sequence[Any]]:
        return await self._call(self._fetch, self._schema.statement(name), values)

    async def _fetch(self, statement: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return await (await self._ready()).fetch(statement, values)

    async def _execute(self, statement: str, values: Mapping[str, Any] | None = None) -> None:
        await (await self._ready()).execute(statement, values)

    async def _migrate(self) -> None:
        async with self._preparing:
            await self._schema.migrate(await self._connected())

    async def _ready(self) -> Database:
        """The database, once it is certain that the tables are ours."""
        async with self._preparing:
            database = await self._connected()
            if not self._is_checked:
                await (self._schema.migrate if self._options.migrate else self._schema.check)(database)
                self._is_checked = True
            return database

    async def _connected(self) -> Database:
        if self._database is None:
            given = self._options
            self._database = await Database.connect(
                given.url.get_secret_value(), given.database, given.connect_timeout_s, given.timeout_s
            )
        return self._database

    async def _close(self) -> None:
        """Let go of everything, in bounded time."""
        self.abort()
        if self._calls:
            await asyncio.wait(self._calls, timeout=_CLOSE_S)
        if self._database:
            await asyncio.wait({asyncio.ensure_future(self._database.close())}, timeout=_CLOSE_S)


async def _coroutine(work: Callable[..., Awaitable[T]], *given: Any) -> T:
    return await work(*given)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
