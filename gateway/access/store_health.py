"""Whether the store is known to be down, for readiness: it is when a question failed and a look did too, and
nothing has succeeded since. Until it has answered once nobody is remembered, so the look alone says it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from backends import Store, StoreUnavailable

log = logging.getLogger("gateway.access")

LOOK_EVERY_S = 5.0

T = TypeVar("T")


class StoreHealth:
    """What was last heard of ``store``."""

    def __init__(self, store: Store, look_every_s: float = LOOK_EVERY_S) -> None:
        self._store = store
        self._look_every_s = look_every_s
        self._has_question_failed = False
        self._has_look_failed = False
        self._has_answered = False

    @property
    def is_down(self) -> bool:
        """Whether the next question is expected to fail."""
        return self._has_look_failed and (self._has_question_failed or not self._has_answered)

    @property
    def is_ailing(self) -> bool:
        """Whether the last question or the last look failed."""
        return self._has_question_failed or self._has_look_failed

    def watched(self, ask: Callable[[str], Awaitable[T]]) -> Callable[[str], Awaitable[T]]:
        """``ask``, of whose outcome we learn."""

        async def asked(name: str) -> T:
            try:
                answer = await ask(name)
            except StoreUnavailable as error:
                self.failed(error)
                raise
            self._answered()
            return answer

        return asked

    def failed(self, error: StoreUnavailable) -> None:
        """A question failed, whoever asked it. May be repeated."""
        self._tell_of(error)
        self._has_question_failed = True

    async def run(self) -> None:
        """Look at the store now and from time to time, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._look_every_s)

    async def look(self) -> None:
        """Ask the store whether it is there."""
        try:
            await self._store.ping()
        except StoreUnavailable as error:
            self._tell_of(error)
            self._has_look_failed = True
        else:
            self._answered()

    def _tell_of(self, error: StoreUnavailable) -> None:
        if not self.is_ailing:
            log.warning("store_down", extra={"code": error.code})

    def _answered(self) -> None:
        if self.is_ailing:
            log.info("store_up")
        self._has_answered = True
        self._has_question_failed = self._has_look_failed = False
