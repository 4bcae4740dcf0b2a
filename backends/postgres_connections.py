"""A driver's pool of connections to a PostgreSQL server, and how each is used, given back or dropped.

Takes a pool that has no connection yet; gives sessions. Knows no driver: what its errors mean is told to it.
A connection is kept after success and after a refusal. After anything else, also when its user is cancelled,
it is dropped at once: asking the server to stop would wait for one that may not answer. Retries nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from .errors import SinkRetryable

CLOSE_S = 1.0
"""How long a server may take to hear that we leave."""

T = TypeVar("T")


class Pool(Protocol):
    """The part of the driver's pool that is used here."""

    async def acquire(self, *, timeout: float | None = None) -> Any: ...

    async def release(self, connection: Any) -> None: ...

    async def close(self) -> None: ...

    def terminate(self) -> None: ...

    def get_size(self) -> int: ...

    def get_idle_size(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver's errors. ``translated(is_connecting)``: within, they are the contract's. ``refusals``: the
    connection is as good after these as before; ``refused``: so it is after these of the contract.
    ``is_gone``: the connection is not ours any more."""

    translated: Callable[[bool], AbstractContextManager[None]]
    refusals: tuple[type[Exception], ...]
    refused: tuple[type[Exception], ...]
    is_gone: type[Exception]


class Connections:
    """A pool, and how its connections are used."""

    def __init__(
        self, pool: Pool, driver: Driver, *, acquire_timeout_s: float, begin: str, is_pooled: bool
    ) -> None:
        self._pool = pool
        self._driver = driver
        self._acquire_timeout_s = acquire_timeout_s
        self._begin = begin
        self._is_pooled = is_pooled

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A connection. What is raised within leaves it as one of the contract's errors."""
        with self._driver.translated(True):
            connection = await self._pool.acquire(timeout=self._acquire_timeout_s)
        try:
            with self._driver.translated(False):
                yield Session(connection, self._driver.refusals, self._begin, self._is_pooled)
        except self._driver.refused:
            raise
        except BaseException:
            with suppress(self._driver.is_gone):  # given back already, by losing the server
                connection.terminate()
            raise
        finally:
            await self._pool.release(connection)

    def counts(self) -> dict[str, int]:
        """How many connections are ``in_use`` and ``idle``. Asks nobody."""
        idle = self._pool.get_idle_size()
        return {"in_use": self._pool.get_size() - idle, "idle": idle}

    def terminate(self) -> None:
        """End all connections at once."""
        self._pool.terminate()

    async def close(self) -> None:
        """Take leave of the server, in bounded time."""
        closing = asyncio.ensure_future(self._pool.close())
        try:
            await asyncio.wait({closing}, timeout=CLOSE_S)
        finally:
            if not closing.done():
                closing.cancel()
                self._pool.terminate()
        await asyncio.wait({closing}, timeout=CLOSE_S)
        with suppress(asyncio.CancelledError):
            closing.exception()  # of a server that is gone


class Session:
    """A connection in use. Behind a pooler every statement has a transaction of its own: that alone keeps a
    statement and the values for it on one server."""

    def __init__(
        self, connection: Any, refusals: tuple[type[Exception], ...], begin: str, is_pooled: bool
    ) -> None:
        self._connection = connection
        self._refusals = refusals
        self._begin = begin
        self._is_pooled = is_pooled
        self._is_whole = False

    async def execute(self, sql: str, *values: Any) -> str:
        return await self._do(self._connection.execute, sql, *values)

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        return await self._do(self._connection.fetch, sql, *values)

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        return await self._do(self._connection.fetchrow, sql, *values)

    async def fetchval(self, sql: str, *values: Any) -> Any:
        return await self._do(self._connection.fetchval, sql, *values)

    async def copy(self, table: str, columns: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
        """``rows`` into the temporary ``table``."""
        await self._connection.copy_records_to_table(
            table, schema_name="pg_temp", records=rows, columns=columns
        )

    @asynccontextmanager
    async def whole(self) -> AsyncIterator[None]:
        """Everything within, or nothing. The driver's own transactions would ask the server to roll back also
        where it does not answer."""
        await self._connection.execute(self._begin)
        self._is_whole = True
        try:
            yield
        except self._refusals:
            await self._connection.execute("ROLLBACK")
            raise
        finally:
            self._is_whole = False
        if await self._connection.execute("COMMIT") != "COMMIT":
            raise SinkRetryable("rolled_back", "the transaction had failed before", ambiguous=False)

    async def _do(self, method: Callable[..., Awaitable[T]], sql: str, *values: Any) -> T:
        if self._is_whole or not self._is_pooled:
            return await method(sql, *values)
        async with self.whole():
            return await method(sql, *values)
