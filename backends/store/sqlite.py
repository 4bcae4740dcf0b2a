"""The embedded store: keys, users, budgets and prices in one SQLite file, beside the gateway, no server.

``sqlite:///relative/path`` or ``sqlite:////absolute/path``. The file is opened, and its schema made or
checked, by the first call that needs it. One thread writes and another one reads, so that nobody waits to be
let in while money is counted; other processes take their turns by the file's lock.

``synchronous=NORMAL`` for money: what was answered survives kill -9. A power cut may take the last few claims
and settlements, never the file; claims expire by themselves, and what was spent can be rebuilt from the rows.
``FULL`` for records: a key that was revoked must not be valid again because the light went out.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from ..errors import SinkError, SinkRetryable, StoreConflict, StoreUnavailable
from ..lane import DatabaseFile, Lane, close_lanes, uses
from ..sqlite_file import Schema, connect, transaction, translated
from . import sqlite_money as money
from . import sqlite_records as records
from .contract import BudgetStrategy, Claim, Settlement, StoreOptions, Verdict
from .records import KeyHolder, Record, User
from .rows import changed_values, checked_names, columns, refuse_halves, to_row
from .sqlite_records import SQL, TABLES

R = TypeVar("R", bound=Record)
Answer = TypeVar("Answer")

_PREFIX = "sqlite:///"
_SCHEMA = Schema(1, SQL, {table: columns(kind) for kind, table in TABLES.items()})


class SqliteStore:
    """See ``Store``. Cancelled, or too slow, the thread finishes what it has begun; what it has not begun
    never happens."""

    budget_strategies: ClassVar[frozenset[BudgetStrategy]] = frozenset({"for_update", "cas"})

    def __init__(self, options: StoreOptions, budget_strategy: BudgetStrategy) -> None:
        self._file = DatabaseFile(_path(options.url.get_secret_value()))
        self._timeout_s = options.timeout_s
        self._hold = money.HOLDS[budget_strategy]
        self._was_there = False
        self._writer = self._lane("store-writer", migrates=options.migrate)
        self._reader = self._lane("store-reader", migrates=options.migrate)
        self._migrator = self._lane("store-migrator", migrates=True)

    def _lane(self, name: str, *, migrates: bool) -> Lane[sqlite3.Connection]:
        opening = partial(self._connect, migrates=migrates)
        return Lane(name, self._file, opening, translated)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: StoreOptions, budget_strategy: BudgetStrategy = "cas"
    ) -> AsyncIterator[Self]:
        store = cls(options, budget_strategy)
        try:
            yield store
        finally:
            await close_lanes(store._lanes, options.timeout_s)

    async def ping(self) -> None:
        await self._read(lambda connection: connection.execute("SELECT 1 FROM users LIMIT 1").fetchone())

    async def migrate(self) -> None:
        await self._run(self._migrator, _SCHEMA.ensure)

    # --- records

    async def add(self, record: Record) -> None:
        refuse_halves(to_row(record))
        await self._change(lambda connection: records.add(connection, record))

    async def get(self, kind: type[R], id: str) -> R | None:
        return await self._read(lambda connection: records.get(connection, kind, id))

    async def list(
        self,
        kind: type[R],
        *,
        after: str | None = None,
        limit: int = 100,
        where: Mapping[str, Any] | None = None,
    ) -> Sequence[R]:
        wanted = checked_names(kind, where or {})
        return await self._read(lambda connection: records.page(connection, kind, after, limit, wanted))

    async def update(self, kind: type[R], id: str, changes: Mapping[str, Any]) -> R | None:
        refuse_halves(changed_values(kind, changes))
        return await self._change(lambda connection: records.update(connection, kind, id, changes))

    async def remove(self, kind: type[R], id: str) -> bool:
        return await self._change(lambda connection: records.remove(connection, kind, id))

    # --- letting in

    async def find_key(self, secret_hash: str) -> KeyHolder | None:
        return await self._read(lambda connection: records.find_key(connection, secret_hash))

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        await self._count(lambda connection: records.touch_keys(connection, used))

    async def keep_master_key(self, secret_hash: str) -> str:
        return await self._change(lambda connection: records.keep_master_key(connection, secret_hash))

    # --- money

    async def reserve(self, claim: Claim) -> Verdict:
        return await self._count(lambda connection: money.reserve(connection, self._hold, claim))

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await self._count(lambda connection: money.settle(connection, settlements))

    async def sweep(self, now: datetime) -> int:
        return await self._count(lambda connection: money.sweep(connection, now))

    async def rebuild_spent(self, user: User, spent_nano: int) -> bool:
        return await self._count(lambda connection: money.rebuild_spent(connection, user, spent_nano))

    # --- watching

    def pool(self) -> Mapping[str, int]:
        return uses(self._lanes)

    # --- ours

    @property
    def _lanes(self) -> tuple[Lane[sqlite3.Connection], ...]:
        return self._writer, self._reader, self._migrator

    async def _read(self, job: Callable[[sqlite3.Connection], Answer]) -> Answer:
        return await self._run(self._reader, job)

    async def _count(self, job: Callable[[sqlite3.Connection], Answer]) -> Answer:
        return await self._run(self._writer, partial(_committed, "NORMAL", job))

    async def _change(self, job: Callable[[sqlite3.Connection], Answer | StoreConflict]) -> Answer:
        """A conflict is an answer on the thread: nothing is wrong with the connection."""
        answer = await self._run(self._writer, partial(_committed, "FULL", job))
        if isinstance(answer, StoreConflict):
            raise answer
        return answer

    async def _run(
        self, lane: Lane[sqlite3.Connection], job: Callable[[sqlite3.Connection], Answer]
    ) -> Answer:
        try:
            async with asyncio.timeout(self._timeout_s):  # the wait for those before it included
                return await lane.run(job)
        except TimeoutError as error:
            raise StoreUnavailable("timeout", f"no answer within {self._timeout_s:g} s") from error
        except SinkError as error:
            raise StoreUnavailable(error.code, error.message) from error

    # --- on the thread

    def _connect(self, *, migrates: bool) -> sqlite3.Connection:
        path = self._file.path
        if self._was_there and not os.path.exists(path):  # a new one would know none of the keys
            raise SinkRetryable("file_gone", f"{path} was moved or deleted", ambiguous=False)
        if migrates:
            with suppress(FileExistsError):  # it holds hashes of secrets; SQLite gives the log the same mode
                os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        connection = connect(path, _SCHEMA, busy_timeout_s=self._timeout_s, migrates=migrates)
        connection.row_factory = sqlite3.Row
        self._was_there = True
        return connection


def _path(url: str) -> Path:
    """The path in the URL. The text of the error shows no part of it."""
    path = url.removeprefix(_PREFIX)
    if path == url or set("?#") & set(path) or path.endswith(":memory:"):
        raise ValueError(
            "must be sqlite:///relative/path or sqlite:////absolute/path, with nothing behind it"
            " (a store without a file: memory:)"
        )
    if not Path(path).name:
        raise ValueError("names no file; it is sqlite:///relative/path or sqlite:////absolute/path")
    return Path(path)


def _committed(
    synchronous: Literal["NORMAL", "FULL"],
    job: Callable[[sqlite3.Connection], Answer],
    connection: sqlite3.Connection,
) -> Answer:
    connection.execute(f"PRAGMA synchronous={synchronous}")
    with transaction(connection):
        return job(connection)
