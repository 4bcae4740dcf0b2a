"""Who gets in: a call asks for a place for its row before any money is spent.

Takes the ledger's room; gives a ``Place`` or a ``Refused``. The only point where a call can be shed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from .ledger import Ledger
from .record import UsageRecord

Receipt: TypeAlias = "asyncio.Future[Any]"
"""Done when the row is as safe as its strategy promises; what it holds is the strategy's own affair."""


Intent: TypeAlias = Callable[[], UsageRecord]
"""Makes the row of a call as it would read if the process died during the call."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No place, for ``reason``. ``is_call_served`` says whether the call goes on, without a row."""

    reason: str
    is_call_served: bool = False


class Custodian(Protocol):
    """Who takes rows in: what a ``Place`` needs of its writer."""

    def accept(self, row: UsageRecord, row_id: UUID) -> Receipt | None:
        """Take custody of ``row`` under ``row_id``; the receipt, if this strategy gives one. Never raises."""
        ...

    async def settled(self, receipt: Receipt) -> None:
        """Return when the row is safe; raises ``NotDurable`` if it is not to be."""
        ...

    def release(self, row_id: UUID) -> None:
        """Take an unused place back."""
        ...


class Place:
    """Room for the row of one call, which will be stored under ``id``. Used once, or given back."""

    __slots__ = ("_custodian", "_is_open", "_receipt", "id")

    def __init__(self, row_id: UUID, custodian: Custodian) -> None:
        self.id = row_id
        self._custodian = custodian
        self._is_open = True
        self._receipt: Receipt | None = None

    @property
    def is_open(self) -> bool:
        """Whether the place has neither been used nor given back."""
        return self._is_open

    def put(self, row: UsageRecord) -> None:
        """Hand ``row`` over, to be stored under the place's id. Never raises, never waits; in a closed
        writer the row is accepted, counted as abandoned and named. Only the first call counts."""
        if self._is_open:
            self._is_open = False
            self._receipt = self._custodian.accept(row, self.id)

    async def durable(self) -> None:
        """Return when the row is as durable as the strategy promises before an answer: at once in
        ``batch``, after the sink's answer in ``single``.

        Raises ``NotDurable`` if it is not to be. May be repeated; cancelling it changes no custody.
        """
        if self._receipt is not None:
            await self._custodian.settled(self._receipt)

    def release(self) -> None:
        """Give the place back unused. Does nothing after ``put``; may be repeated."""
        if self._is_open:
            self._is_open = False
            self._custodian.release(self.id)


class Admission:
    """The queue before the ledger's door, first come first served, and the count of those turned away."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.shed: Counter[str] = Counter()

    def enter_beyond(self, more: int) -> bool:
        """Take a place over the ledger's bounds; see ``Ledger.admit_beyond``."""
        return self._ledger.admit_beyond(more)

    def enter_now(self) -> bool:
        """Take a place if there is room that nobody waits for."""
        return not self._waiting and self._ledger.admit()

    async def enter(self, max_wait_s: float) -> bool:
        """Take a place, waiting at most ``max_wait_s`` seconds for room. May be cancelled: nothing leaks,
        for the place is taken only in the step that returns."""
        if self.enter_now():
            return True
        if max_wait_s <= 0:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await asyncio.wait({turn}, timeout=max_wait_s)
            return self._ledger.admit()
        finally:
            self._waiting.remove(turn)
            self.let_in()

    def let_in(self) -> None:
        """Room may have become free: wake as many as now fit."""
        for turn, _ in zip(self._waiting, range(self._ledger.room), strict=False):
            if not turn.done():
                turn.set_result(None)

    def dismiss(self) -> None:
        """Wake everyone: there will be no more room."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)

    def refuse(self, reason: str, *, is_call_served: bool = False) -> Refused:
        """Count one call turned away."""
        self.shed[reason] += 1
        return Refused(reason, is_call_served)
