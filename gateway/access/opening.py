"""Opens the door, with the tasks behind it, and closes it: they end before the store does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from backends import Store

from ..sections import Settings
from .authentication import Access
from .master_key import MasterKey

log = logging.getLogger("gateway.access")

AFTER_A_BUG_S = 5.0
END_S = 0.25
"""How long a driver may take to heed being cancelled."""


@asynccontextmanager
async def opened_access(settings: Settings, store: Store) -> AsyncIterator[Access]:
    """The door of ``store``. Open at once, whether or not the store answers."""
    configured = settings.master_key.get_secret_value() if settings.master_key else None
    access = Access(store, MasterKey(configured, store), cache_s=settings.store.cache_s)
    tasks = [
        asyncio.ensure_future(_kept_running(each))
        for each in (access.master.settle, access.health.run, access.last_used.run)
    ]
    try:
        yield access
    finally:
        for task in tasks:  # none of them holds anything that a cancel could lose
            task.cancel()
        await asyncio.wait(tasks, timeout=END_S)
        await access.last_used.close()
        await access.close()


async def _kept_running(run: Callable[[], Awaitable[None]]) -> None:
    """``run``, begun again if a bug ends it."""
    while True:
        try:
            return await run()
        except Exception:
            log.exception("access_task_failed")
            await asyncio.sleep(AFTER_A_BUG_S)
