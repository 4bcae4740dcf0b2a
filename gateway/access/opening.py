"""Opens the door, with the tasks behind it, and closes it: they end before the store does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backends import Store

from ..sections import Settings
from .authentication import Access
from .master_key import MasterKey


@asynccontextmanager
async def opened_access(settings: Settings, store: Store) -> AsyncIterator[Access]:
    """The door of ``store``. Open at once, whether or not the store answers."""
    configured = settings.master_key.get_secret_value() if settings.master_key else None
    access = Access(store, MasterKey(configured, store), cache_s=settings.store.cache_s)
    # None of them holds anything that a cancel could lose.
    tasks = [
        asyncio.ensure_future(each)
        for each in (access.master.settle(), access.health.run(), access.last_used.run())
    ]
    try:
        yield access
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await access.last_used.close()
        await access.close()
