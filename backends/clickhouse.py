"""ClickHouse: usage rows in a ReplacingMergeTree, for those who keep very many of them.

Takes batches, one insert each and one more for every month that a batch reaches into; gives ``Committed``
once the server has the rows on its disk. Two lines keep a row from counting twice: the server knows a batch
by its token as long as the table's window reaches, and what comes later than that is one row for ``FINAL``,
for the view ``usage_logs_once`` and for this read side. The server does not tell which rows it knew, so
``new`` counts every row of a batch; only those that are in it several times are ``duplicates``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit
from uuid import UUID

from clickhouse_connect import get_async_client
from clickhouse_connect.driver import exceptions as driver
from clickhouse_connect.driver.asyncclient import AsyncClient
from pydantic import ConfigDict, Field, SecretStr, field_validator

from . import clickhouse_queries as queries
from .clickhouse_errors import sentence, server_error
from .clickhouse_schema import TYPES, Schema
from .columns import Values, by_month, columns_of, microseconds
from .errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable
from .numbers import NumberedRow, Run
from .record import COLUMNS, Batch, Boot
from .sink import Capabilities, Committed, SinkOptions
from .usage_query import SummaryQuery, SummaryRow, UsagePage, UsageQuery

_CLOSE_S = 1.0
_PORTS = {"http": 8123, "https": 8443}
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
        if not _is_address(url.get_secret_value()):
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
        self._database: _Database | None = None
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

    async def _ready(self) -> _Database:
        """The database, once it is certain that the tables are ours."""
        async with self._preparing:
            database = await self._connected()
            if not self._is_checked:
                await (self._schema.migrate if self._options.migrate else self._schema.check)(database)
                self._is_checked = True
            return database

    async def _connected(self) -> _Database:
        if self._database is None:
            self._database = await _Database.connect(self._options)
        return self._database

    async def _close(self) -> None:
        """Let go of everything, in bounded time."""
        self.abort()
        if self._calls:
            await asyncio.wait(self._calls, timeout=_CLOSE_S)
        if self._database:
            await asyncio.wait({asyncio.ensure_future(self._database.close())}, timeout=_CLOSE_S)


class _Database:
    """The driver's client; raises ``SinkError`` alone."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, options: ClickHouseOptions) -> Self:
        """A client that knows its server: the driver asks it some questions first."""
        parts = urlsplit(options.url.get_secret_value())
        with _translated():
            client = await get_async_client(
                interface=parts.scheme,
                host=parts.hostname,
                port=parts.port or _PORTS[parts.scheme],
                username=unquote(parts.username or "default"),
                password=unquote(parts.password or ""),
                database=options.database,
                connect_timeout=options.connect_timeout_s,
                send_receive_timeout=options.timeout_s,
                query_retries=0,  # when to try again is the core's to say
                autogenerate_session_id=False,
                tz_mode="aware",
                client_name="tallygate",
            )
        return cls(client)

    async def insert(self, table: str, columns: Sequence[Values], token: str) -> None:
        """Store ``columns``, in the order of ``COLUMNS``, unless the server knows ``token``."""
        with _translated():
            await self._client.insert(
                table,
                columns,
                column_names=COLUMNS,
                column_type_names=tuple(TYPES.values()),  # else the driver asks for them, each time
                column_oriented=True,
                settings={"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": token},
            )

    async def fetch(self, sql: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows that ``sql`` selects."""
        with _translated():
            answer = await self._client.query(sql, parameters=dict(values), settings=queries.READ_SETTINGS)
            return answer.result_rows

    async def execute(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        """Run ``sql``."""
        with _translated():
            await self._client.command(sql, parameters=dict(values or {}))

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()


# --- tasks and addresses


async def _coroutine(work: Callable[..., Awaitable[T]], *given: Any) -> T:
    return await work(*given)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_address(url: str) -> bool:
    try:
        parts: SplitResult = urlsplit(url)
        is_complete = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return (
        is_complete
        and parts.scheme in _PORTS
        and parts.path in ("", "/")
        and not (parts.query or parts.fragment)
    )


# --- errors


@contextmanager
def _translated() -> Iterator[None]:
    """What the driver raises, as one of the contract's errors."""
    try:
        yield
    except driver.Error as error:
        raise _sink_error(error) from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise SinkBatchRejected(type(error).__name__, "a row holds a value that cannot be sent") from error
    except (OSError, RuntimeError) as error:
        raise SinkRetryable(type(error).__name__, "the connection is gone", ambiguous=True) from error


def _sink_error(error: driver.Error) -> SinkError:
    if error.code is not None:
        return server_error(error.code, error.name, str(error))
    if isinstance(error, driver.DataError):
        return SinkBatchRejected("DataError", "a row holds a value that cannot be sent")
    if isinstance(error, driver.ProgrammingError):
        return SinkFatal("driver_refused", sentence(str(error)))
    is_refused = isinstance(error.__cause__, ConnectionRefusedError)
    return SinkRetryable("unreachable", sentence(str(error)), ambiguous=not is_refused)
