"""Options for a store in one test's MongoDB database: on an imitation, one command at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from backends.store import StoreOptions

from .mongo_database import OwnDatabase
from .one_at_a_time import OneAtATime


@asynccontextmanager
async def served(mongo: OwnDatabase, **more: Any) -> AsyncIterator[StoreOptions]:
    """Options of a store on this database, while the server has the promise of a ``mongod`` to keep."""
    if mongo.server.is_real:
        yield store_options(mongo, **more)
        return
    async with OneAtATime(mongo.server.port, mongo.server.host) as turns:
        yield store_options(mongo, port=turns.port, **more)


def store_options(mongo: OwnDatabase, *, port: int | None = None, **more: Any) -> StoreOptions:
    """The same with nothing between, or through ``port`` where a proxy listens."""
    given = urlsplit(mongo.server.url)
    parts = urlsplit(mongo.server.url if port is None else mongo.server.url_through(port))
    source = f"&authSource={given.path.strip('/') or 'admin'}"  # else it were the store's own database
    query = parts.query if "authSource" in parts.query or not parts.username else parts.query + source
    named = parts._replace(path=f"/{mongo.name}", query=query.lstrip("&")).geturl()
    return StoreOptions.model_validate({"url": named, "timeout_s": 10, **more})
