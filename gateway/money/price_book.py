"""The prices in force, by model and time, held in memory so that no call asks for one.

Takes the configuration's prices and reads the store's again and again; gives the price of a model at the time
of a call. A store that is down leaves the prices as they were read last.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import datetime
from operator import itemgetter
from typing import TypeAlias

from backends import PriceEntry, Store, StoreUnavailable

from ..pricing import Price
from .default_prices import DefaultPrices, no_prices

log = logging.getLogger("gateway.money")

PAGE_ENTRIES = 1000
END_S = 0.25
"""How long a driver may take to heed being cancelled."""
RETRY_S = 0.5
"""So soon the first reading is tried again: until then no call is served."""

History: TypeAlias = "list[tuple[datetime, Price]]"


class PriceBook:
    """A store's price is in force from its own time on, until a later one of the same model; before the
    first of them the configuration's is, and where there is none the default. ``refresh_s``: how old what is
    shown may be; ``patience_s``: for how long a call waits for the first reading."""

    def __init__(
        self,
        configured: Mapping[str, Price],
        store: Store,
        *,
        refresh_s: float,
        patience_s: float,
        defaults: DefaultPrices = no_prices,
    ) -> None:
        self._configured = configured
        self._store = store
        self._refresh_s = refresh_s
        self._patience_s = patience_s
        self._defaults = defaults
        self._histories: Mapping[str, History] = {}
        self._reading = asyncio.Lock()
        self._has_read = asyncio.Event()
        self._is_stale = False

    @asynccontextmanager
    async def fresh(self) -> AsyncIterator[None]:
        """Inside, the store is read in the background."""
        task = asyncio.get_running_loop().create_task(self._keep_fresh(), name="price book")
        try:
            yield
        finally:
            task.cancel()  # it only reads
            await asyncio.wait({task}, timeout=END_S)

    def price_at(self, name: str, at: datetime) -> Price | None:
        """What ``provider:model`` costs in a call that began at ``at``, or None. Asks nobody."""
        history = self._histories.get(name)
        if history and (index := bisect_right(history, at, key=_effective_at)):
            return history[index - 1][1]
        price = self._configured.get(name)
        return self._defaults(name, at) if price is None else price

    def models(self, at: datetime) -> list[str]:
        """Every ``provider:model`` with a price at ``at``, less those that only the defaults know."""
        known = {*self._configured, *self._histories}
        return sorted(name for name in known if self.price_at(name, at) is not None)

    @property
    def is_ready(self) -> bool:
        """Whether the store has been read."""
        return self._has_read.is_set()

    async def ready(self) -> None:
        """Return once the store has been read, which it is soon after the start. Raises
        ``StoreUnavailable``."""
        if self.is_ready:
            return
        try:
            async with asyncio.timeout(self._patience_s):
                await self._has_read.wait()
        except TimeoutError:
            raise StoreUnavailable("prices_unknown", "the prices have not been read yet") from None

    async def refresh(self) -> None:
        """Read the store: what is in it when this is called is in force when it returns. Raises
        ``StoreUnavailable``; then nothing is changed."""
        async with self._reading:  # or an older answer might replace a newer one
            histories: defaultdict[str, History] = defaultdict(list)
            for entry in await self._entries():
                if price := _price(entry):
                    histories[entry.model].append((entry.effective_at, price))
            for history in histories.values():
                history.sort(key=_effective_at)
            self._histories = dict(histories)
            self._has_read.set()

    async def _entries(self) -> list[PriceEntry]:
        entries: list[PriceEntry] = []
        while True:
            after = entries[-1].id if entries else None
            page = await self._store.list(PriceEntry, after=after, limit=PAGE_ENTRIES)
            entries += page
            if len(page) < PAGE_ENTRIES:
                return entries

    async def _keep_fresh(self) -> None:
        while True:
            try:
                await self.refresh()
                self._is_stale = False
            except StoreUnavailable as error:
                self._tell_of(error)
            except Exception:  # a bug must not freeze the prices for good
                log.exception("price_book_failed")
            has_read = self._has_read.is_set()
            await asyncio.sleep(self._refresh_s if has_read else min(RETRY_S, self._refresh_s))

    def _tell_of(self, error: StoreUnavailable) -> None:
        if not self._is_stale:
            log.warning("prices_stale", extra={"code": error.code})
        self._is_stale = True


def _price(entry: PriceEntry) -> Price | None:
    named = {each.name: getattr(entry, each.name) for each in fields(Price)}
    try:
        return Price(**{name: value for name, value in named.items() if value is not None})
    except ValueError:  # one that nobody can reckon with must not keep the others from being read
        log.warning("price_unusable", extra={"id": entry.id, "model": entry.model})
        return None


_effective_at = itemgetter(0)
