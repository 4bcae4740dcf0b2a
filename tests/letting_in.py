"""The door of applications that a test puts together itself, and those who come to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from backends import ApiKey, Store, User, load_store
from gateway.access import Access
from gateway.access.master_key import MasterKey
from gateway.access.secrets import hash_of, hint_of
from gateway.keys import ACCESS, STORE

MASTER_KEY = "tg-test"
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


def make_api_key(secret: str = "tg-of-ann", **fields: Any) -> ApiKey:
    """Ann's key with this secret, without limits."""
    own = {"id": f"key-{secret}", "user_id": "ann", "created_at": LONG_AGO}
    return ApiKey(secret_hash=hash_of(secret), hint=hint_of(secret), **{**own, **fields})
