"""One test's database on a MongoDB server: sinks that write there, and what a test does around them."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pymongo import MongoClient
from pymongo.database import Database

from backends.mongo import MongoOptions, MongoSink
from backends.record import COLUMNS, Boot, UsageRecord

from .mongo import MongoServer
from .proxy import Proxy


@dataclass(frozen=True)
class OwnDatabase:
    """``name`` on ``server``; made by whoever writes first."""

    server: MongoServer
    name: str

    # --- sinks

    def options(self, *, port: int | None = None, **more: Any) -> MongoOptions:
        """Options for a sink, through ``port`` where a proxy listens."""
        uri = self.server.url if port is None else self.server.url_through(port)
        return MongoOptions.model_validate({"uri": uri, "database": self.name, **more})

    def opened(self, *, port: int | None = None, **more: Any) -> AbstractAsyncContextManager[MongoSink]:
        """A sink on this database."""
        return MongoSink.open(self.options(port=port, **more))

    def proxy(self) -> Proxy:
        """A wire to the server that can fail."""
        return Proxy(self.server.port, self.server.host)

    # --- around the sink

    @contextmanager
    def connected(self) -> Iterator[Database[dict[str, Any]]]:
        """The bare driver. It blocks."""
        with MongoClient[dict[str, Any]](
            self.server.url, uuidRepresentation="standard", tz_aware=True
        ) as client:
            yield client[self.name]

    def documents(self, collection: str = "usage_logs") -> list[dict[str, Any]]:
        """Every document of a collection; none of one that is not there."""
        with self.connected() as database:
            return list(database[collection].find())

    def rows(self) -> list[UsageRecord]:
        """Every stored row."""
        return [_record(found) for found in self.documents()]

    def ids(self) -> list[UUID]:
        """Of every stored row, in their order."""
        return sorted(found["_id"] for found in self.documents())

    def boots(self) -> list[Boot]:
        """Every stored boot."""
        return [Boot(id=found.pop("_id"), **found) for found in self.documents("usage_boots")]

    def drop(self) -> None:
        """Remove it."""
        with self.connected() as database:
            database.client.drop_database(self.name)


def _record(found: dict[str, Any]) -> UsageRecord:
    """By another way than the sink's own."""
    values: dict[str, Any] = {name: found[name] for name in COLUMNS if name not in ("id", "cost")}
    moment, microsecond = found["timestamp"], found["timestamp_us"] % 1_000_000
    assert isinstance(moment, datetime) and moment.microsecond == microsecond // 1000 * 1000
    cost = None if found["cost"] is None else Decimal(found["cost"]) / 10**9
    values["timestamp"] = moment.replace(microsecond=microsecond)
    return UsageRecord(id=found["_id"], cost=cost, **values)


def collect_connecting_sockets() -> None:
    """PyMongo leaves a socket that it was connecting when it closed to the collector, which would tell of it
    in some later test. Call it where a client closed while its server refused, and nothing holds it now."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
