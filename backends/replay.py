"""Sends dead letters again that somebody has marked, and takes over what dead siblings left.

A row that is sent again stays in its file until the sink has it: a commit removes the letter, a refusal
renews it without its mark, any other failure leaves it as it was, to be tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID

from .dead_letters import DeadLetters
from .dispatch import Dispatcher
from .ledger import Ledger
from .pulse import Pulse

log = logging.getLogger("backends.replay")

LOOK_EVERY_S = 2.0
"""Nobody tells us that a letter was marked: it is done by another process, in the file."""
ADOPT_EVERY_S = 30.0


class Replay:
    """The way back from the dead letters into one ledger. ``on_adopted()`` is called after every look at
    what dead siblings left; with ``adopts`` false somebody else says when."""

    def __init__(
        self,
        letters: DeadLetters,
        ledger: Ledger,
        dispatcher: Dispatcher,
        pulse: Pulse,
        on_adopted: Callable[[], None],
        *,
        adopts: bool,
    ) -> None:
        self._letters = letters
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._pulse = pulse
        self._on_adopted = on_adopted
        self._adopts = adopts
        self._look_at = 0.0
        self._adopt_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self, is_draining: Callable[[], bool]) -> None:
        """Begin. Once ``is_draining()`` nothing is sent again any more."""
        self._is_draining = is_draining
        loop = asyncio.get_running_loop()
        self._adopt_at = loop.time() + ADOPT_EVERY_S
        self._task = loop.create_task(self._run(), name="log-writer replay")
        self._task.add_done_callback(self._ended)

    def end(self) -> None:
        """Let go: what was under way is the closing writer's to account for."""
        if self._task is not None:
            self._task.cancel()

    # --- deciding

    def wants_batch(self, now: float) -> bool:
        """Whether it is time to look for marks, sink and memory are well enough, and nothing of ours is in
        flight: so no row is ever sent twice at once."""
        fetch_at = self._dispatcher.fetch_at()
        return (
            now >= self._look_at
            and fetch_at is not None
            and now >= fetch_at
            and not self._ledger.has_fetched("dead_lettered")
        )

    def send(self, now: float) -> bool:
        """Put the next marked rows in flight; whether there are any."""
        batch = self._letters.marked()
        self._ledger.recover(len(self._letters.take_found()), "dead_lettered")
        if batch is None:
            self._look_at = now + LOOK_EVERY_S
            return False
        self._dispatcher.fetched(batch, now, "dead_lettered")
        log.info("dead_letters_replayed", extra={"rows": len(batch.rows)})
        return True

    def adopt(self) -> frozenset[UUID]:
        """Take over what dead siblings left; the rows of the letters that were found."""
        found = self._letters.adopt()
        self._ledger.recover(len(found), "dead_lettered")
        self._on_adopted()
        return found

    # --- waiting

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not (self._dispatcher.is_closed or self._is_draining()):
            now = loop.time()
            if self._adopts and now >= self._adopt_at:
                self._adopt_at = now + ADOPT_EVERY_S
                self.adopt()
            if self.wants_batch(now) and self.send(now):
                self._pulse.beat()
            await self._pulse.wait_until(now + LOOK_EVERY_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("replay_died", exc_info=error)
            if not self._dispatcher.is_closed:
                self.start(self._is_draining)
