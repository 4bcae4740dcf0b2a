"""Providers whose SDK only pretends not to block: Amazon's. Their calls run in threads of their own.

Daemons, one for each step of a call: a provider that hangs holds up neither the loop, nor a pool that others
wait for, nor the end of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

BLOCKING = frozenset(("bedrock", "sagemaker"))
"""By the SDK's names."""


async def in_thread(function: Callable[[], T]) -> T:
    """What ``function`` gives or raises. Cancelling lets it go: it ends by itself, unheard."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    Thread(target=work, name="any-llm", daemon=True).start()
    return await done


def driven(coroutine: Coroutine[Any, Any, T]) -> T:
    """What ``coroutine`` returns, which blocks where others wait. Raises ``RuntimeError`` if it waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("waits for a loop")
