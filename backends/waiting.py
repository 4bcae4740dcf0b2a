"""Waiting for one future, as ``asyncio.wait`` does it for many, at a third of what that costs."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any


async def wait_for_end(future: asyncio.Future[Any], timeout_s: float | None) -> None:
    """Return when ``future`` is done, or after ``timeout_s`` seconds (None: no limit). Raises nothing of its
    own. May be cancelled: that ends the waiting, and the future goes on, for others may wait for it too."""
    if future.done():
        return
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    wake = partial(_wake, waiter)
    timer = None if timeout_s is None else loop.call_later(timeout_s, wake)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        future.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()


def _wake(waiter: asyncio.Future[None], _: object = None) -> None:
    if not waiter.done():
        waiter.set_result(None)
