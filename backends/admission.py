"""Who gets in: a call asks for a place for its row before any money is spent.

Takes the room in memory, and on the disk where there is one; gives a ``Place`` or a ``Refused``. The only
point where a call can be shed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from uuid import UUID

from uuid_utils.compat import uuid7

from .batching import BatchingOptions
from .job import Disk
from .place import Custodian, Place, Refused
from .pulse import Pulse
from .room import Room
from .waiting import wait_for_end


class Admission:
    """The queue before the door, first come first served, and the count of those turned away.

    ``refusal`` tells why nobody is let in, or None.
    """

    def __init__(
        self,
        custodian: Custodian,
        room: Room,
        options: BatchingOptions,
        disk: Disk | None,
        pulse: Pulse,
        *,
        refusal: Callable[[], str | None],
    ) -> None:
        self._custodian = custodian
        self._room = room
        self._options = options
        self._disk = disk
        self._pulse = pulse
        self._refusal = refusal
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.shed: Counter[str] = Counter()

    async def reserve(self, row_id: UUID | None) -> Place | Refused:
        """See ``LogWriter.reserve``."""
        if reason := self._refusal():
            return self._refuse(reason)
        if not self._enter_now() and (refused := await self._wait_for_room()):
            return refused
        return Place(row_id or uuid7(), self._custodian)

    def reserve_now(self) -> Place | None:
        """See ``LogWriter.reserve_now``."""
        if self._refusal() or not (self._enter_beyond() or self._enter_now()):
            return None
        return Place(uuid7(), self._custodian)

    def release(self) -> None:
        """Take an unused place back."""
        self._room.release()
        self.let_in()
        self._pulse.beat()

    def let_in(self) -> None:
        """Room may have become free: wake as many as now fit."""
        for turn, _ in zip(self._waiting, range(self._room.left), strict=False):
            if not turn.done():
                turn.set_result(None)

    def dismiss(self) -> None:
        """Wake everyone: there will be no more room."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)

    def would_refuse(self) -> str | None:
        """The reason for which the next call would be refused, or None."""
        is_full = self._options.on_full == "reject" and not self._room.left
        return self._refusal() or ("queue_full" if is_full else None)

    def reasons(self) -> dict[str, str]:
        """What is wrong here, and a word on it."""
        reasons = {}
        if not self._room.left and self._options.on_full != "spill":
            reasons["queue_full"] = f"calls without a place: {self._options.on_full}"
        return reasons

    # --- the door

    async def _wait_for_room(self) -> Refused | None:
        """Why there is no place after all; None: one has been taken."""
        if not await self._enter():
            return self._refuse("queue_full", is_call_served=self._options.on_full != "reject")
        if reason := self._refusal():
            self.release()
            return self._refuse(reason)
        return None

    def _refuse(self, reason: str, *, is_call_served: bool = False) -> Refused:
        self.shed[reason] += 1
        return Refused(reason, is_call_served)

    def _enter_now(self) -> bool:
        """Take a place if there is room that nobody waits for."""
        return not self._waiting and self._room.admit()

    def _enter_beyond(self) -> bool:
        """Take a place on the disk, when there is none in memory."""
        if self._options.on_full != "spill" or self._disk is None or self._room.left:
            return False
        if not self._room.admit_beyond(min(self._disk.room, self._options.max_places)):
            return False
        self._pulse.beat()
        return True

    async def _enter(self) -> bool:
        """Room in memory, else, with ``spill``, on the disk; without room there ``spill`` is ``block``."""
        if self._enter_beyond():
            return True
        if self._options.on_full in ("block", "spill"):
            return await self._enter_within(self._options.max_block_s)
        return self._enter_now()

    async def _enter_within(self, max_wait_s: float) -> bool:
        """Take a place, waiting at most ``max_wait_s`` seconds for room. May be cancelled: nothing leaks,
        for the place is taken only in the step that returns."""
        if self._enter_now():
            return True
        if max_wait_s <= 0:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await wait_for_end(turn, max_wait_s)
            return self._room.admit()
        finally:
            self._waiting.remove(turn)
            self.let_in()
