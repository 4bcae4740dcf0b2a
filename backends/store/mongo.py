"""MongoDB as the store, by way of PyMongo's asyncio client, which is the store's own.

A write is done once a majority of the servers has it in its journal. Each call is a task of the store's
own: one that is cancelled is over for its caller and goes on without one, for ``timeout_s`` at most, because
PyMongo's calls, ended in the wrong moment, leave sockets open. The server has to change one document in one
step, as ``mongod`` does; nothing more is asked of it, no transactions, no joins, no arithmetic.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import pymongo

from ..calls import Calls, take_leave
from ..mongo_pool import PoolCount
from .contract import BudgetStrategy, Claim, Settlement, StoreOptions, Verdict
from .mongo_accounts import Accounts
from .mongo_documents import record
from .mongo_driver import Database, connect, translated
from .mongo_moves import Move
from .mongo_records import Records
from .mongo_schema import COLLECTIONS, Schema, warn_of_imitations
from .records import ApiKey, KeyHolder, Record, User, to_millisecond

_CLOSE_S = 0.5
"""How long calls under way, and then the server, may take when we leave."""
_DRIVERS_SHARE = 0.9
"""Of a call's time: the driver ends a little earlier than we do, for it can tell what is wrong."""

R = TypeVar("R", bound=Record)
P = ParamSpec("P")
T = TypeVar("T")


class MongoStore:
    """See ``Store``."""

    budget_strategies: ClassVar[frozenset[BudgetStrategy]] = frozenset({"cas"})

    def __init__(self, options: StoreOptions) -> None:
        self._options = options
        self._pool = PoolCount()
        self._client, name = connect(options, self._pool)
        self._database = Database(self._client, name)
        self._tables = {kind: self._database.table(name) for kind, name in COLLECTIONS.items()}
        self._keys, self._users, self._meta = (self._tables[kind] for kind in ("key", "user", "meta"))
        self._records = Records(self._tables)
        self._accounts = Accounts(self._users)
        self._calls = Calls()
        self._schema = Schema(self._tables)
        self._is_server_known = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: StoreOptions, budget_strategy: BudgetStrategy = "cas"
    ) -> AsyncIterator[Self]:
        if budget_strategy not in cls.budget_strategies:
            raise ValueError(f"budget strategy {budget_strategy} is not offered here; write cas")
        store = cls(options)
        try:
            yield store
        finally:
            await store._calls.close(_CLOSE_S)
            await take_leave(store._client.close, store._client.close, _CLOSE_S)

    async def ping(self) -> None:
        """As the contract says. Looks at the schema anew: somebody may have dropped the database."""
        self._schema.is_known = False
        await self._run(self._nothing)

    async def migrate(self) -> None:
        """As the contract says."""
        await self._bounded(self._schema.make)

    # --- records

    async def add(self, record: Record) -> None:
        await self._run(self._records.add, record)

    async def get(self, kind: type[R], id: str) -> R | None:
        return await self._run(self._records.get, kind, id)

    async def list(
        self,
        kind: type[R],
        *,
        after: str | None = None,
        limit: int = 100,
        where: Mapping[str, Any] | None = None,
    ) -> Sequence[R]:
        return await self._run(self._records.list, kind, after, limit, where)

    async def update(self, kind: type[R], id: str, changes: Mapping[str, Any]) -> R | None:
        return await self._run(self._records.update, kind, id, changes)

    async def remove(self, kind: type[R], id: str) -> bool:
        return await self._run(self._records.remove, kind, id)

    # --- letting in

    async def find_key(self, secret_hash: str) -> KeyHolder | None:
        """As the contract says, with two questions: no server is asked to join."""
        return await self._run(self._find_key, secret_hash)

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        moves: list[Move] = [
            ({"_id": id}, {"$max": {"last_used_at": to_millisecond(at)}}) for id, at in used.items()
        ]
        await self._run(self._keys.change_each, moves)

    async def keep_master_key(self, secret_hash: str) -> str:
        return await self._run(self._keep_master_key, secret_hash)

    # --- money

    async def reserve(self, claim: Claim) -> Verdict:
        return await self._run(self._accounts.reserve, claim)

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await self._run(self._accounts.settle, settlements)

    async def sweep(self, now: datetime) -> int:
        return await self._run(self._accounts.sweep, now)

    async def rebuild_spent(self, user: User, spent_nano: int) -> bool:
        return await self._run(self._accounts.rebuild_spent, user, spent_nano)

    # --- watching

    def pool(self) -> Mapping[str, int]:
        return self._pool.by_state()

    # --- calls

    async def _run(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``call`` gives; the first one sees to the schema."""

        async def prepared() -> T:
            await self._schema.ensure(may_change=self._options.migrate)
            return await call(*args, **kwargs)

        return await self._bounded(prepared)

    async def _bounded(self, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` gives, in the contract's errors and in time."""

        async def bounded() -> T:
            with pymongo.timeout(self._options.timeout_s * _DRIVERS_SHARE):
                await self._look_at_server()
                return await call()

        with translated():
            async with asyncio.timeout(self._options.timeout_s):
                return await self._calls.run(bounded())

    async def _look_at_server(self) -> None:
        if not self._is_server_known:
            warn_of_imitations(await self._database.server())
            self._is_server_known = True

    async def _nothing(self) -> None:
        pass

    async def _find_key(self, secret_hash: str) -> KeyHolder | None:
        either = {"$or": [{"secret_hash": secret_hash}, {"previous_hash": secret_hash}]}
        found = await self._keys.find_one(either)
        if found is None:
            return None
        user = await self._users.find_one({"_id": found["user_id"]}, without=("claims",))
        return KeyHolder(record(ApiKey, found), record(User, user)) if user else None

    async def _keep_master_key(self, secret_hash: str) -> str:
        await self._meta.upsert("master_key", {"$setOnInsert": {"secret_hash": secret_hash}})
        found = await self._meta.find_one({"_id": "master_key"})
        assert found, "nobody removes it"
        return str(found["secret_hash"])
