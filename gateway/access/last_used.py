"""When keys were last used: gathered in memory, written from time to time. Nothing depends on it, so a store
that is down costs nobody anything."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from backends import Store, StoreError

log = logging.getLogger("gateway.access")

WRITE_EVERY_S = 60.0
AT_STOP_S = 0.25


class LastUsed:
    """The times of this process. One for each key, however many calls it made."""

    def __init__(self, store: Store, write_every_s: float = WRITE_EVERY_S) -> None:
        self._store = store
        self._write_every_s = write_every_s
        self._used: dict[str, datetime] = {}

    def touch(self, key_id: str, at: datetime) -> None:
        """The key was used."""
        self._used[key_id] = at

    async def run(self) -> None:
        """Write every minute, until cancelled."""
        while True:
            await asyncio.sleep(self._write_every_s)
            await self.write()

    async def write(self) -> None:
        """Write what was gathered; what the store does not take is kept for the next time."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._store.touch_keys(used)
        except StoreError as error:
            log.warning("last_used_not_written", extra={"code": error.code, "keys": len(used)})
            self._used = used | self._used

    async def close(self) -> None:
        """Write for the last time, if that does not take long."""
        try:
            async with asyncio.timeout(AT_STOP_S):
                await self.write()
        except TimeoutError:
            log.warning("last_used_not_written", extra={"code": "timeout"})
