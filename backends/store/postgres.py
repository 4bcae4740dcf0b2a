"""PostgreSQL: keys, users, budgets, prices and claims in tables of a database that all processes share.

Connections of its own, made when first needed and never the sink's; none is held between two calls. Each call
is one statement or one transaction, and ends within ``timeout_s`` whatever the server does. A connection is
kept after success and after a refusal; after anything else it is dropped at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, ClassVar, Self, TypeVar

import asyncpg  # type: ignore[import-untyped]

from ..errors import SinkError, StoreConflict, StoreUnavailable
from ..postgres_address import dsn_problem, without_pooler_switch
from ..postgres_codes import READ_ONLY
from ..postgres_connections import Connections, Driver, Session
from ..postgres_driver import connections_to, translated
from ..statements import statements
from . import postgres_accounts as accounts
from . import postgres_records as records
from . import postgres_schema as schema
from .contract import SWEPT_KEPT_S, BudgetStrategy, Claim, Settlement, StoreOptions, Verdict
from .postgres_texts import is_kept
from .records import KeyHolder, Record, User
from .rows import account_of

R = TypeVar("R", bound=Record)

_SERVERS_SHARE = 0.8
"""Of the time for a request: as a rule the server gives up first, and then nothing was done."""

_PROBE = statements("store_postgres")["probe"]
_CONFLICTS: Mapping[str | None, tuple[str, str]] = {
    "gateway_keys_secret_hash": ("secret_hash", "another key has this secret"),
    "gateway_prices_effective_at": ("effective_at", "this model has another price from this time on"),
}
"""By constraint; all others are of an id."""


class PostgresStore:
    """See ``Store``. ``?pgbouncer=true`` in the URL says that a pooler in transaction mode is in between."""

    budget_strategies: ClassVar[frozenset[BudgetStrategy]] = frozenset({"for_update", "cas"})

    def __init__(self, options: StoreOptions, strategy: BudgetStrategy, connections: Connections) -> None:
        self._options = options
        self._strategy = strategy
        self._connections = connections
        self._is_checked = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: StoreOptions, budget_strategy: BudgetStrategy = "cas"
    ) -> AsyncIterator[Self]:
        url = options.url.get_secret_value()
        if problem := dsn_problem(url):
            raise ValueError(f"{problem}; write postgresql://USER:PASSWORD@HOST:5432/DATABASE")
        dsn, is_pooled = without_pooler_switch(url)
        connections = await connections_to(
            dsn,
            _DRIVER,
            size=options.max_connections,
            acquire_timeout_s=options.timeout_s,
            statement_timeout_s=options.timeout_s * _SERVERS_SHARE,
            command_timeout_s=options.timeout_s,
            is_pooled=is_pooled,
        )
        try:
            yield cls(options, budget_strategy, connections)
        finally:
            await connections.close()

    async def ping(self) -> None:
        """As the contract says: the tables fit, and it is no standby."""
        async with self._ready() as session:
            if await session.fetchval(_PROBE):
                raise StoreUnavailable(READ_ONLY, "the server takes no writes")

    async def migrate(self) -> None:
        async with self._session() as session:
            await schema.ensure(session, may_change=True)

    # --- records

    async def add(self, record: Record) -> None:
        async with self._ready() as session:
            await records.add(session, record)

    async def get(self, kind: type[R], id: str) -> R | None:
        async with self._ready() as session:
            return await records.get(session, kind, id)

    async def list(
        self,
        kind: type[R],
        *,
        after: str | None = None,
        limit: int = 100,
        where: Mapping[str, Any] | None = None,
    ) -> Sequence[R]:
        async with self._ready() as session:
            return await records.page(session, kind, after, limit, where or {})

    async def update(self, kind: type[R], id: str, changes: Mapping[str, Any]) -> R | None:
        async with self._ready() as session:
            return await records.update(session, kind, id, changes)

    async def remove(self, kind: type[R], id: str) -> bool:
        async with self._ready() as session:
            return await records.remove(session, kind, id)

    # --- letting in

    async def find_key(self, secret_hash: str) -> KeyHolder | None:
        async with self._ready() as session:
            return await records.find_key(session, secret_hash)

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        async with self._ready() as session:
            await records.touch_keys(session, used)

    async def keep_master_key(self, secret_hash: str) -> str:
        async with self._ready() as session:
            return await records.keep_master_key(session, secret_hash)

    # --- money

    async def reserve(self, claim: Claim) -> Verdict:
        """As the contract says. ``cas`` asks with one statement, and takes the lock only when that did not
        hold the money: what has expired, and what period it is, is looked at there."""
        if not is_kept(claim.user_id):
            return "user_missing"
        async with self._in_time():
            if self._strategy == "cas" and await self._hold_at_once(claim):
                return "held"
            async with self._ready() as session:
                return await accounts.hold(session, claim)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        async with self._ready() as session:
            await accounts.settle(session, settlements)

    async def sweep(self, now: datetime) -> int:
        async with self._ready() as session:
            await accounts.forget(session, now - timedelta(seconds=SWEPT_KEPT_S))
            return await accounts.sweep(session, now)

    async def rebuild_spent(self, user: User, spent_nano: int) -> bool:
        if not is_kept(user.id):
            return False
        async with self._ready() as session:
            return await accounts.rebuild_spent(session, user.id, account_of(user), spent_nano)

    # --- watching

    def pool(self) -> Mapping[str, int]:
        return self._connections.counts()

    # --- ours

    async def _hold_at_once(self, claim: Claim) -> bool:
        with suppress(StoreConflict):  # the same claim came in at the same time
            async with self._ready() as session:
                return await accounts.hold_at_once(session, claim)
        return False

    @asynccontextmanager
    async def _ready(self) -> AsyncIterator[Session]:
        """A session on tables that fit. They are looked at by the first call, and again after trouble."""
        async with self._session() as session:
            if not self._is_checked:
                await schema.ensure(session, may_change=self._options.migrate)
                self._is_checked = True
            yield session

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        async with self._in_time():
            try:
                async with self._connections.session() as session:
                    yield session
            except StoreUnavailable:
                self._is_checked = False
                raise

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Within, everything together takes no longer than one request may."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                yield
        except TimeoutError:
            raise StoreUnavailable("timeout", "no answer in time") from None


# --- errors


@contextmanager
def _translated(is_connecting: bool) -> Iterator[None]:
    """What the driver or the operating system raises, as one of the contract's errors."""
    try:
        with translated(is_connecting), _conflicts():
            yield
    except SinkError as error:
        raise StoreUnavailable(error.code, error.message) from error


@contextmanager
def _conflicts() -> Iterator[None]:
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        field, text = _CONFLICTS.get(error.constraint_name, ("id", "there is one with this id"))
        raise StoreConflict(field, text) from None  # the error quotes the record


_DRIVER = Driver(
    _translated,
    (asyncpg.PostgresError, StoreConflict, StoreUnavailable),
    (StoreConflict,),
    asyncpg.InterfaceError,
)
