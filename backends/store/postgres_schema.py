"""The tables of the PostgreSQL store: made and checked.

Takes a connection; gives tables that fit, or ``StoreUnavailable``. Every process may do it at any time: a
lock in the database lets one at a time, and the wait for it is bounded as every statement is.
"""

from __future__ import annotations

from ..errors import StoreUnavailable
from ..postgres_schema import Connection
from ..statements import statements

SCHEMA_VERSION = 1

_SQL = statements("store_postgres")


async def ensure(connection: Connection, *, may_change: bool) -> None:
    """Return if the tables are there and fit; make them if ``may_change``."""
    if await _fits(connection):
        return
    if not may_change:
        raise StoreUnavailable("schema_missing", "the store's tables are not set up; run `tallygate migrate`")
    async with connection.whole():
        await connection.execute(_SQL["lock_schema"])
        if not await _fits(connection):  # another process was first
            await connection.execute(_SQL["create_schema"])
            await connection.execute(_SQL["note_version"], str(SCHEMA_VERSION))


async def _fits(connection: Connection) -> bool:
    """False if the tables are missing."""
    if not await connection.fetchval(_SQL["has_schema"]):
        return False
    version = await connection.fetchval(_SQL["schema_version"])
    if version is not None and version > SCHEMA_VERSION:
        text = f"the store has schema {version}, this program knows {SCHEMA_VERSION}"
        raise StoreUnavailable("schema_newer", text)
    return version is not None
