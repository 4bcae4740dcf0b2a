"""The store of the settings, open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backends import Store, load_store

from .config_errors import ConfigurationError
from .settings import Settings


async def check_store(settings: Settings) -> None:
    """Return if the store can be opened; it need not answer. Raises ``ConfigurationError``."""
    async with opened_store(settings):
        pass


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """The store, open; asks nobody yet. Raises ``ConfigurationError`` for a URL that is none of its store's,
    without showing it."""
    strategy = settings.budget_strategy
    store_class = load_store(settings.store.url.get_secret_value())
    opening = store_class.open(settings.store, "cas" if strategy == "disabled" else strategy)
    try:
        store = await opening.__aenter__()
    except ValueError as error:
        raise ConfigurationError("", "store.url", str(error)) from None
    try:
        yield store
    finally:
        await opening.__aexit__(None, None, None)
