"""What can befall the databases of a load run, as contexts: inside something is wrong, afterwards it is
healed.

Takes a file, a server of the tests or a proxy before one; gives faults by their names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from chaos_places import locked

Fault: TypeAlias = Callable[[], AbstractAsyncContextManager[None]]
SLOW_S = 0.1
"""So much later comes everything on a slow wire, either way."""
HELD_S, FREE_S = 0.4, 0.1
"""How another process holds the lock of a slow SQLite file, again and again."""


def of_a_file(path: Path) -> Mapping[str, Fault]:
    """A file cannot freeze; that another process holds its lock is as good as any outage."""
    return {"killed": lambda: locked(path), "slow": lambda: _stuttering(path)}


def of_a_server(server: Any) -> Mapping[str, Fault]:
    """One that a variable names is not ours to kill."""
    return {"killed": lambda: _killed(server), "frozen": lambda: _frozen(server)} if server.is_ours else {}


@asynccontextmanager
async def _killed(server: Any) -> AsyncIterator[None]:
    await asyncio.to_thread(server.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(server.restart)


@asynccontextmanager
async def _frozen(server: Any) -> AsyncIterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@asynccontextmanager
async def slow(proxy: Any) -> AsyncIterator[None]:
    proxy.delay(SLOW_S)
    try:
        yield
    finally:
        await proxy.heal()


@asynccontextmanager
async def _stuttering(path: Path) -> AsyncIterator[None]:
    async def stutter() -> None:
        while not is_over.is_set():
            async with locked(path):
                await asyncio.sleep(HELD_S)
            await asyncio.sleep(FREE_S)

    is_over = asyncio.Event()
    stuttering = asyncio.create_task(stutter())
    try:
        yield
    finally:
        is_over.set()
        await stuttering
