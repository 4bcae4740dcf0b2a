"""The collection of the rows: made, brought up to date, or found to be somebody else's.

Takes collections, and what of their driver has to be known; gives nothing back, or raises ``SinkFatal``. The
version is a document in ``usage_schema``, written last: who reads it knows that everything is there. Every
step may be repeated, and several processes may take them at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from .errors import SinkFatal
from .mongo_documents import FIELDS, Document

log = logging.getLogger("backends.mongo")

SCHEMA_VERSION = 1
BOOTS = "usage_boots"
VERSIONS = "usage_schema"
"""A document for each collection of rows: ``_id`` is its name, ``version`` the schema that it has."""

INDEXES: Mapping[str, Sequence[str]] = {
    "by_time": ("timestamp_us", "_id"),
    "by_user": ("user_id", "timestamp_us", "_id"),
    "by_key": ("api_key_id", "timestamp_us", "_id"),
    "by_request": ("request_id",),
}
RETENTION = "retention"
_DAY_S = 86400


class Collection(Protocol):
    """The part of a driver's collection that is used here."""

    @property
    def name(self) -> str: ...

    @property
    def full_name(self) -> str: ...

    @property
    def database(self) -> Any: ...

    def find_one(self, filter: Any = None) -> Awaitable[Any]: ...

    def options(self) -> Awaitable[Mapping[str, Any]]: ...

    def index_information(self) -> Awaitable[Mapping[str, Any]]: ...

    def create_index(self, keys: Any, **options: Any) -> Awaitable[Any]: ...

    def drop_index(self, index_or_name: Any) -> Awaitable[Any]: ...

    def update_one(self, filter: Any, update: Any) -> Awaitable[Any]: ...


class Schema:
    """The schema of ``rows``. ``upsert`` changes or makes the document with a key; ``refusal`` tells the code
    of an error that comes again whenever the same is asked, else None."""

    def __init__(
        self,
        rows: Collection,
        versions: Collection,
        retention_days: int | None,
        *,
        upsert: Callable[[Any, Any, Document], Awaitable[None]],
        refusal: Callable[[Exception], str | None],
    ) -> None:
        self._rows = rows
        self._versions = versions
        self._retention_s = retention_days * _DAY_S if retention_days else None
        self._upsert = upsert
        self._refusal = refusal

    async def ensure(self, *, may_change: bool) -> None:
        """Return if the schema is there and fits; if ``may_change``, make what is missing. May be cancelled.
        Raises ``SinkFatal``."""
        if await self._version() < SCHEMA_VERSION and not may_change:
            raise SinkFatal(
                "schema_missing", f"{self._rows.full_name} is not set up; run `tallygate migrate`"
            )
        await self._check_collection()
        indexes = await self._rows.index_information()
        self._check_unique(indexes)
        if may_change:
            await self._make_indexes(indexes)
            await self._set_retention(indexes.get(RETENTION, {}).get("expireAfterSeconds"))
            await self._upsert(self._versions, self._rows.name, {"$max": {"version": SCHEMA_VERSION}})

    async def touch(self) -> bool:
        """Write that the schema is what it is, which changes nothing; whether it is."""
        mine = {"_id": self._rows.name, "version": SCHEMA_VERSION}
        answer = await self._versions.update_one(mine, {"$set": {"version": SCHEMA_VERSION}})
        return bool(answer.matched_count)

    async def _version(self) -> int:
        found = await self._versions.find_one({"_id": self._rows.name})
        version = int(found["version"]) if found else 0
        if version > SCHEMA_VERSION:
            knows = f"this program knows {SCHEMA_VERSION}"
            raise SinkFatal("schema_newer", f"{self._rows.full_name} has schema {version}, {knows}")
        return version

    async def _check_collection(self) -> None:
        """Documents of others are left alone, and a kind of collection that drops rows or takes an ``_id``
        twice is not used."""
        if kinds := {"capped", "timeseries", "viewOn"} & {*filter(None, await self._rows.options())}:
            raise self._differs(f"is no plain collection ({', '.join(sorted(kinds))})")
        found = await self._rows.find_one()
        if found and (strange := FIELDS.symmetric_difference(found)):
            raise self._differs(f"has other fields than this program's ({', '.join(sorted(strange))})")

    def _check_unique(self, indexes: Mapping[str, Any]) -> None:
        """Not every server tells which unique index refused a row, so there has to be only one."""
        if unique := [name for name, each in indexes.items() if each.get("unique")]:
            raise self._differs(f"has a unique index beside that of _id ({', '.join(unique)}); drop it")

    def _differs(self, how: str) -> SinkFatal:
        return SinkFatal("schema_differs", f"{self._rows.full_name} {how}")

    async def _make_indexes(self, found: Mapping[str, Any]) -> None:
        """One command each: some servers take no more."""
        there = {tuple(name for name, _ in each["key"]) for each in found.values()}
        for name, fields in INDEXES.items():
            if tuple(fields) not in there:
                await self._rows.create_index([(field, 1) for field in fields], name=name)

    async def _set_retention(self, found_s: float | None) -> None:
        if self._retention_s == found_s:
            return
        try:
            await self._change_retention(found_s)
        except Exception as error:
            code = self._refusal(error)
            if code is None:
                raise
            log.warning("retention_refused", extra={"code": code, "collection": self._rows.full_name})

    async def _change_retention(self, found_s: float | None) -> None:
        wanted_s = self._retention_s
        if wanted_s is None:
            await self._rows.drop_index(RETENTION)
        elif found_s is None:
            await self._rows.create_index([("timestamp", 1)], name=RETENTION, expireAfterSeconds=wanted_s)
        else:
            index = {"name": RETENTION, "expireAfterSeconds": wanted_s}
            await self._rows.database.command("collMod", self._rows.name, index=index)
