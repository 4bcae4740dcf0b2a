"""PostgreSQL: usage rows in a table of a database that somebody runs anyway, partitioned by month on demand.

Takes batches, one statement each, or one transaction; gives ``Committed`` once the server says so. Rows that
are there already stay as they are, by their ids. The sink has connections of its own, made when first needed:
some write, others read, so that a long question delays no row. A connection is kept after success and after a
refusal; after anything else it is dropped at once, without asking a server that may not answer.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from logging import getLogger
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypeVar
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]
from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from . import postgres_queries as queries
from .errors import SinkBatchRejected, SinkFatal, SinkRetryable
from .numbers import NumberedRow, Run
from .postgres_address import dsn_problem
from .postgres_codes import READ_ONLY
from .postgres_connections import CLOSE_S, Connections, Session
from .postgres_driver import SINK_DRIVER, UNFIT, connections_to, is_missing_partition
from .postgres_schema import BOOTS, Schema, affected
from .record import COLUMNS, Batch, Boot, UsageRecord
from .sink import Capabilities, Committed, SinkOptions
from .usage_query import SummaryQuery, SummaryRow, UsagePage, UsageQuery

log = getLogger("backends.postgres")

COPY_ABOVE_ROWS = 1000
"""Larger batches are copied into a temporary table first; for smaller ones that costs more than it saves."""
RETIRE_EVERY_S = 3600.0

_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]{0,49}"  # 63 bytes at most, with _202601 behind it
_FIELDS = operator.attrgetter(*COLUMNS)
_TIMESTAMP = COLUMNS.index("timestamp")
_FIRST, _END = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""Times that are stored; far beyond, the driver makes infinity of them."""

Columns: TypeAlias = list[tuple[Any, ...]]
T = TypeVar("T")


class PostgresOptions(SinkOptions):
    """``dsn``: the database. ``table``: of the rows, perhaps ``schema.table``. ``partition_by``: a partition
    for each month, made when its first row comes. ``retention_days``: rows older than that are removed, with
    partitions month by month. ``migrate``: make and upgrade the tables when first needed. ``pgbouncer``: a
    pooler in transaction mode is in between. ``acquire_timeout_s``: for a connection, new or free;
    ``statement_timeout_s``: after which the server gives up; ``command_timeout_s``: after which we do;
    ``read_timeout_s``: both, for reading. Keep the first three below ``attempt_timeout_s``."""

    model_config = ConfigDict(hide_input_in_errors=True)

    dsn: SecretStr = SecretStr("postgresql://localhost/gateway")
    table: str = Field(default="usage_logs", pattern=rf"^({_IDENTIFIER}\.)?{_IDENTIFIER}$")
    partition_by: Literal["month"] | None = None
    retention_days: int | None = Field(default=None, ge=1, le=36_500)
    migrate: bool = True
    pgbouncer: bool = False
    write_connections: int = Field(default=4, ge=1, le=1000)
    read_connections: int = Field(default=2, ge=1, le=1000)
    acquire_timeout_s: float = Field(default=3.0, gt=0)
    statement_timeout_s: float = Field(default=7.0, ge=0.001)
    command_timeout_s: float = Field(default=8.0, gt=0)
    read_timeout_s: float = Field(default=30.0, ge=0.001)

    @field_validator("dsn")
    @classmethod
    def _is_an_address(cls, dsn: SecretStr) -> SecretStr:
        if problem := dsn_problem(dsn.get_secret_value()):
            raise ValueError(f"{problem}; write postgresql://USER:PASSWORD@HOST:5432/DATABASE")
        return dsn

    @field_validator("table")
    @classmethod
    def _is_free(cls, table: str) -> str:
        if table.rpartition(".")[2] == BOOTS:
            raise ValueError(f"{BOOTS} is taken for the sink's own use; choose another name")
        return table

    @model_validator(mode="after")
    def _server_gives_up_first(self) -> Self:
        if self.statement_timeout_s > self.command_timeout_s:
            raise ValueError("statement_timeout_s must not be above command_timeout_s")
        return self


class PostgresSink:
    """Two pools, made without a connection; each call is a task, so that ``abort`` can end it."""

    Options: ClassVar[type[SinkOptions]] = PostgresOptions
    capabilities: ClassVar[Capabilities] = Capabilities()
    batching_defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, options: PostgresOptions, writing: Connections, reading: Connections) -> None:
        self._options = options
        self._writing = writing
        self._reading = reading
        self._schema = Schema(options.table, options.partition_by == "month", options.retention_days)
        self._calls: set[asyncio.Task[Any]] = set()
        self._is_checked = False
        self._is_ending = False
        self._next_retire_s = 0.0

    @classmethod
    @asynccontextmanager
    async def open(cls, options: PostgresOptions) -> AsyncIterator[Self]:
        writing = await _connections(
            options, options.write_connections, options.statement_timeout_s, options.command_timeout_s
        )
        reading = await _connections(
            options, options.read_connections, options.read_timeout_s, options.read_timeout_s + 1
        )
        sink = cls(options, writing, reading)
        try:
            yield sink
        finally:
            await sink._close()

    async def write(self, batch: Batch) -> Committed:
        """As the contract says. Cancelled, it leaves no connection checked out; the server may finish what it
        has begun."""
        return await self._run(self._write(batch)) if batch.rows else Committed(0)

    async def ping(self) -> None:
        """As the contract says: the server answers, the tables fit, and it is no standby."""
        await self._run(self._ping())

    def abort(self) -> None:
        """As the contract says. The server may finish what it has begun."""
        self._is_ending = True
        for connections in (self._writing, self._reading):
            connections.terminate()
        for call in tuple(self._calls):
            call.cancel()

    async def migrate(self) -> None:
        """As the contract says."""
        await self._run(self._migrate())

    async def record_boot(self, boot: Boot) -> None:
        values = (boot.id, boot.started_at, boot.closed_at, boot.last_seq, boot.abandoned)
        await self._run(self._execute(self._schema.statement("record_boot"), *values))

    async def read_usage(self, query: UsageQuery) -> UsagePage:
        """As the contract says. Raises ``ValueError`` for a filter that is none of ``FILTER_COLUMNS``."""
        sql, values = queries.page_statement(query, self._schema)
        return queries.page(await self._run(self._fetch(sql, *values)), query.limit)

    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        """As the contract says. Raises ``ValueError`` for an unknown filter or group."""
        sql, values = queries.summary_statement(query, self._schema)
        return queries.summary(await self._run(self._fetch(sql, *values)), len(query.group_by))

    async def read_boots(self) -> tuple[Boot, ...]:
        return tuple(Boot(**each) for each in await self._read("read_boots"))

    async def read_runs(self) -> tuple[Run, ...]:
        return tuple(Run(**each) for each in await self._read("read_runs"))

    async def read_repeated(self, boot_id: UUID, limit: int) -> tuple[NumberedRow, ...]:
        return tuple(NumberedRow(**each) for each in await self._read("read_repeated", boot_id, limit))

    def pool(self) -> Mapping[str, int]:
        counts = self._writing.counts(), self._reading.counts()
        return {state: sum(each[state] for each in counts) for state in counts[0]}

    # --- calls

    async def _run(self, call: Coroutine[Any, Any, T]) -> T:
        """What ``call`` gives; ``abort`` ends it. After a fatal error the schema is looked at again."""
        if self._is_ending:
            call.close()
            raise SinkRetryable("closing", "the sink is closing", ambiguous=False)
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        try:
            return await task
        except SinkFatal:
            self._is_checked = False
            raise
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise SinkRetryable("aborted", "the sink was told to end", ambiguous=True) from None
        finally:
            self._calls.discard(task)
            del task  # its error's traceback leads back here, and would keep the batch

    async def _write(self, batch: Batch) -> Committed:
        columns = _columns(batch.rows)
        async with self._ready(self._writing) as session:
            await self._retire(session)
            new = await self._insert(session, columns)
        return Committed(new, len(batch.rows) - new)

    async def _insert(self, session: Session, columns: Columns) -> int:
        """How many rows are new. A partition that is missing is made; nothing was stored without it."""
        store = self._copy if len(columns[0]) > COPY_ABOVE_ROWS else self._unnest
        with _values_refused():
            try:
                return await store(session, columns)
            except asyncpg.CheckViolationError as error:
                if not is_missing_partition(error):
                    raise
            await self._schema.make_partitions(session, set(columns[_TIMESTAMP]))
            return await store(session, columns)

    async def _unnest(self, session: Session, columns: Columns) -> int:
        return affected(await session.execute(self._schema.statement("insert_rows"), *columns))

    async def _copy(self, session: Session, columns: Columns) -> int:
        async with session.whole():
            await session.execute(self._schema.statement("create_incoming"))
            await session.copy("tallygate_incoming", COLUMNS, zip(*columns, strict=True))
            return affected(await session.execute(self._schema.statement("insert_incoming")))

    async def _retire(self, session: Session) -> None:
        """Remove old rows now and then. What goes wrong with that is no business of the batch."""
        now_s = asyncio.get_running_loop().time()
        if self._options.retention_days is None or now_s < self._next_retire_s:
            return
        self._next_retire_s = now_s + RETIRE_EVERY_S
        try:
            if await self._schema.retire(session, datetime.now(UTC)):
                self._next_retire_s = now_s
        except asyncpg.PostgresError as error:
            log.warning("retention failed", extra={"code": error.sqlstate})

    async def _ping(self) -> None:
        async with self._ready(self._writing) as session:
            if await session.fetchval(self._schema.statement("probe")):
                raise SinkRetryable(READ_ONLY, "the server takes no writes", ambiguous=False)

    async def _migrate(self) -> None:
        async with self._writing.session() as session:
            await self._schema.ensure(session, may_change=True)

    async def _execute(self, sql: str, *values: Any) -> None:
        async with self._ready(self._writing) as session:
            await session.execute(sql, *values)

    async def _read(self, name: str, *values: Any) -> list[Any]:
        return await self._run(self._fetch(self._schema.statement(name), *values))

    async def _fetch(self, sql: str, *values: Any) -> list[Any]:
        async with self._ready(self._reading) as session:
            return await session.fetch(sql, *values)

    @asynccontextmanager
    async def _ready(self, connections: Connections) -> AsyncIterator[Session]:
        """A session on tables that fit. They are looked at once, by the first call that needs them."""
        async with connections.session() as session:
            if not self._is_checked:
                await self._schema.ensure(session, may_change=self._options.migrate)
                self._is_checked = True
            yield session

    async def _close(self) -> None:
        if calls := tuple(self._calls):
            self.abort()
            await asyncio.wait(calls, timeout=CLOSE_S)
        await asyncio.gather(self._writing.close(), self._reading.close())


def _is_cancelled() -> bool:
    """Whether somebody asked for the end of the task in which we are."""
    task = asyncio.current_task()
    return bool(task and task.cancelling())


async def _connections(
    options: PostgresOptions, size: int, statement_timeout_s: float, command_timeout_s: float
) -> Connections:
    return await connections_to(
        options.dsn.get_secret_value(),
        SINK_DRIVER,
        size=size,
        acquire_timeout_s=options.acquire_timeout_s,
        statement_timeout_s=statement_timeout_s,
        command_timeout_s=command_timeout_s,
        is_pooled=options.pgbouncer,
    )


# --- rows


def _columns(rows: Sequence[UsageRecord]) -> Columns:
    """``rows`` as columns, sorted by id: writers that meet in the same rows lock them in one order."""
    try:
        if not all(_FIRST <= row.timestamp < _END for row in rows):
            raise OverflowError
        return list(zip(*map(_FIELDS, sorted(rows, key=lambda row: row.id)), strict=True))
    except UNFIT as error:
        raise SinkBatchRejected(type(error).__name__, "a row has no usable time, or no id") from None


@contextmanager
def _values_refused() -> Iterator[None]:
    """What the driver raises for a value that it cannot send, before it sends anything of the statement."""
    try:
        yield
    except UNFIT as error:
        name = type(error).__name__
        raise SinkBatchRejected(name, "a row holds a value that cannot be sent") from None
