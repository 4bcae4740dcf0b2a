"""The collection's indexes and retention, on a server that can do what the one of the tests cannot."""

from __future__ import annotations

from typing import Any

import pytest

from backends.errors import SinkFatal
from backends.mongo_schema import INDEXES, Schema

DAY_S = 86400


class Refused(Exception):
    """The server says that it never does this."""


class Collection:
    """A collection that is only what was said about it."""

    full_name, name = "gateway.usage_logs", "usage_logs"

    def __init__(self) -> None:
        self.indexes: dict[str, dict[str, Any]] = {"_id_": {"key": [("_id", 1)]}}
        self.kind: dict[str, Any] = {}
        self.version: dict[str, Any] | None = None
        self.done: list[str] = []
        self.refuses_ttl: Exception | None = None

    @property
    def database(self) -> Collection:
        return self

    async def find_one(self, filter: Any = None) -> Any:
        return self.version if filter else None

    async def options(self) -> dict[str, Any]:
        return self.kind

    async def index_information(self) -> dict[str, Any]:
        return dict(self.indexes)

    async def create_index(self, keys: Any, *, name: str, **options: Any) -> None:
        if options and self.refuses_ttl:
            raise self.refuses_ttl
        self.indexes[name] = {"key": keys, **options}
        self.done.append(f"create {name}")

    async def drop_index(self, name: str) -> None:
        del self.indexes[name]
        self.done.append(f"drop {name}")

    async def command(self, command: str, name: str, *, index: dict[str, Any]) -> None:
        self.indexes[index["name"]]["expireAfterSeconds"] = index["expireAfterSeconds"]
        self.done.append(command)

    async def update_one(self, filter: Any, update: Any) -> None:
        raise AssertionError("only touch() does that")

    async def upsert(self, collection: Any, key: str, change: dict[str, Any]) -> None:
        self.version = {"_id": key, **change["$max"]}
        self.done.append("version")


def schema(collection: Collection, days: int | None = None) -> Schema:
    return Schema(
        collection,
        collection,
        days,
        upsert=collection.upsert,
        refusal=lambda error: "never" if isinstance(error, Refused) else None,
    )


def retention_s(collection: Collection) -> Any:
    return collection.indexes.get("retention", {}).get("expireAfterSeconds")


async def test_the_version_is_written_when_everything_is_there() -> None:
    collection = Collection()

    await schema(collection, 90).ensure(may_change=True)

    assert collection.done == [*(f"create {name}" for name in INDEXES), "create retention", "version"]


async def test_what_is_there_is_not_made_again() -> None:
    collection = Collection()
    collection.indexes["theirs"] = {"key": [("timestamp_us", -1), ("_id", -1)]}

    await schema(collection).ensure(may_change=True)
    collection.done.clear()
    await schema(collection).ensure(may_change=True)

    assert "by_time" not in collection.indexes
    assert collection.done == ["version"]


async def test_retention_is_changed_in_place_and_ended() -> None:
    collection = Collection()

    for days in (90, 90, 30, None, None):
        await schema(collection, days).ensure(may_change=True)
        assert retention_s(collection) == (days * DAY_S if days else None)

    changes = [each for each in collection.done if each in ("create retention", "collMod", "drop retention")]
    assert changes == ["create retention", "collMod", "drop retention"]


async def test_told_to_change_nothing_it_leaves_retention_as_it_is() -> None:
    collection = Collection()
    await schema(collection, 90).ensure(may_change=True)

    await schema(collection, 30).ensure(may_change=False)

    assert retention_s(collection) == 90 * DAY_S


async def test_a_server_that_refuses_retention_is_used_without(caplog: pytest.LogCaptureFixture) -> None:
    collection = Collection()
    collection.refuses_ttl = Refused()

    await schema(collection, 90).ensure(may_change=True)

    assert collection.version
    (warning,) = caplog.records
    assert (warning.message, warning.levelname) == ("retention_refused", "WARNING")
    assert vars(warning)["code"] == "never"


async def test_a_server_that_cannot_now_is_asked_again() -> None:
    collection = Collection()
    collection.refuses_ttl = ConnectionError()

    with pytest.raises(ConnectionError):
        await schema(collection, 90).ensure(may_change=True)

    assert collection.version is None


@pytest.mark.parametrize("kind", ["timeseries", "viewOn", "capped"])
async def test_a_collection_of_another_kind_is_fatal(kind: str) -> None:
    collection = Collection()
    collection.kind = {kind: {"x": 1}}

    with pytest.raises(SinkFatal, match=rf"no plain collection \({kind}\)"):
        await schema(collection).ensure(may_change=True)

    assert collection.done == []
