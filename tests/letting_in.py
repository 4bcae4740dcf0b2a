"""The door of applications that a test puts together itself, and those who come to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aiohttp import web

from backends import ApiKey, Store, StoreUnavailable, User, load_store
from gateway.access import Access
from gateway.access.master_key import MasterKey
from gateway.access.secrets import hash_of, hint_of
from gateway.keys import ACCESS, STORE

MASTER_KEY = "tg-test"
ANNS_KEY = "tg-of-ann"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def memory_store() -> Store:
    """An empty store, open: it holds nothing that would have to be closed."""
    return load_store("memory:")()  # type: ignore[call-arg]


def let_in(app: web.Application, store: Store | None = None, **options: Any) -> Access:
    """Give ``app`` a door that ``MASTER_KEY`` opens, and the keys in ``store``."""
    app[STORE] = store or memory_store()
    app[ACCESS] = Access(app[STORE], MasterKey(MASTER_KEY, app[STORE]), **{"cache_s": 5.0, **options})
    return app[ACCESS]


def make_user(id: str = "ann", **fields: Any) -> User:
    """A user who may call."""
    return User(id=id, **{"created_at": LONG_AGO, **fields})


def make_api_key(secret: str = ANNS_KEY, **fields: Any) -> ApiKey:
    """Ann's key with this secret, without limits."""
    own = {"id": f"key-{hash_of(secret)[:8]}", "user_id": "ann", "created_at": LONG_AGO}
    return ApiKey(secret_hash=hash_of(secret), hint=hint_of(secret), **{**own, **fields})


class Hand:
    """A clock that stands until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class CountingStore:
    """A store that counts what it is asked, by method; that can be down, and can hold an answer back."""

    COUNTED = ("find_key", "get", "ping", "touch_keys", "keep_master_key", "reserve", "settle")

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: Counter[str] = Counter()
        self.is_down = False
        self.answers_late = False
        """The gate is behind the answer, not before the question."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self._noticed = asyncio.Event()

    async def was_asked(self, name: str, times: int) -> None:
        """Wait until the method was called so often."""
        async with asyncio.timeout(10):
            while self.asked[name] < times:
                self._noticed.clear()
                await self._noticed.wait()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return partial(self._ask, name, method) if name in self.COUNTED else method

    async def _ask(self, name: str, method: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        self.asked[name] += 1
        self._noticed.set()
        if self.is_down:
            raise StoreUnavailable("down")
        answer = await method(*args) if self.answers_late else None
        self.arrived.set()
        await self.gate.wait()
        return answer if self.answers_late else await method(*args)
