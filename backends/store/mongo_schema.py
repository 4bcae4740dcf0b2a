"""The collections of the store: made, or found to be another program's. Knows no driver.

The version is a document in ``gateway_meta``, written last: who reads it knows that everything is there.
Every step may be repeated, and several processes may take them at once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..errors import StoreUnavailable
from .mongo_documents import Document

log = logging.getLogger("backends.store.mongo")

SCHEMA_VERSION = 1
COLLECTIONS: Mapping[str, str] = {
    "key": "gateway_keys",
    "user": "gateway_users",
    "budget": "gateway_budgets",
    "price": "gateway_prices",
    "meta": "gateway_meta",
}
INDEXES: Sequence[tuple[str, str, Sequence[str]]] = (
    ("key", "by_previous", ("previous_hash",)),
    ("key", "by_user", ("user_id", "_id")),
    ("user", "by_budget", ("budget_id",)),
    ("user", "by_sweep", ("sweep_at",)),
)
"""Kind, name and fields."""
UNIQUE: Sequence[tuple[str, str, Sequence[str]]] = (
    ("key", "by_secret", ("secret_hash",)),
    ("price", "by_model", ("model", "effective_at")),
)


class Table(Protocol):
    """A collection, as far as it is needed here."""

    async def find_one(self, condition: Document) -> Document | None: ...

    async def upsert(self, id: str, update: Document) -> None: ...

    async def create_index(self, name: str, fields: Sequence[str], *, unique: bool) -> None: ...


class Schema:
    """The schema of ``tables``, by the kinds of ``COLLECTIONS``."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables
        self.is_known = False
        """That it was there when we looked. Set it to False to have it looked at again."""

    async def ensure(self, *, may_change: bool) -> None:
        """Return if the schema is there; if ``may_change``, make it when it is not. Raises
        ``StoreUnavailable``: a person has to act."""
        if self.is_known:
            return
        if await self._is_missing():
            if not may_change:
                raise StoreUnavailable("schema_missing", "the store is not set up; run `tallygate migrate`")
            await self.make()
        self.is_known = True

    async def make(self) -> None:
        """Every index, one command each, for some servers take no more; then the version. Raises
        ``StoreUnavailable`` for a schema of a newer program."""
        await self._is_missing()
        for kind, name, fields in UNIQUE:
            await self._tables[kind].create_index(name, fields, unique=True)
        for kind, name, fields in INDEXES:
            await self._tables[kind].create_index(name, fields, unique=False)
        await self._tables["meta"].upsert("schema", {"$max": {"version": SCHEMA_VERSION}})

    async def _is_missing(self) -> bool:
        found = await self._tables["meta"].find_one({"_id": "schema"})
        version = int(found["version"]) if found else 0
        if version > SCHEMA_VERSION:
            text = f"the store has schema {version}, this program knows {SCHEMA_VERSION}"
            raise StoreUnavailable("schema_newer", text)
        return version < SCHEMA_VERSION


def warn_of_imitations(server: Mapping[str, Any]) -> None:
    """``server`` is what it says of itself. FerretDB reads a document, decides and writes it in three
    steps: claims at the same time do not see each other."""
    if any(str(name).lower().startswith("ferretdb") for name in server):
        meaning = "this server does not change a document in one step; budgets may be overspent"
        log.warning("store_not_atomic", extra={"server": "FerretDB", "meaning": meaning})
