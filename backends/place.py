"""Room for the row of one call: what a call has from its admission until its row is handed over.

Takes one row, or is given back; the writer that gave it takes custody. See ``Admission`` for who gets one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from uuid import UUID

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
