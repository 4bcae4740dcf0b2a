"""The configured store for one command: opened, used, and its trouble told in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from backends import Store, StoreError

from ..config_errors import ConfigurationError
from ..errors import GatewayError
from ..settings import Settings
from ..store import opened_store
from .sink import refuse

Use: TypeAlias = Callable[[Store], Awaitable[None]]


def with_store(settings: Settings, use: Use, timeout_s: float | None = None) -> int:
    """Give the open store to ``use``; the exit status. What ``use`` refuses, an option or an id, is told."""
    try:
        asyncio.run(_used(settings, use, timeout_s))
    except (StoreError, TimeoutError) as error:
        return refuse(f"store: {str(error) or f'no answer in {timeout_s or 0:.0f} s'}")
    except ConfigurationError as error:
        return refuse(str(error))
    except GatewayError as error:
        option = f"--{error.param.partition('.')[0].replace('_', '-')}: " if error.param else ""
        return refuse(f"{option}{error.message}")
    return 0


async def _used(settings: Settings, use: Use, timeout_s: float | None) -> None:
    async with opened_store(settings) as store, asyncio.timeout(timeout_s):
        await use(store)


def as_it_is(settings: Settings) -> Settings:
    """The same, with the store's schema left alone, whatever the configuration says."""
    store = settings.store.model_copy(update={"migrate": False})
    return settings.model_copy(update={"store": store})
