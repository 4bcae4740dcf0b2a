"""The contract between the gateway and whatever keeps its usage rows."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from .place import Intent, Place, Refused
from .record import UsageRecord
from .reports import FlushReport, StopReport, WriterStats


class LogWriter(Protocol):
    """What the gateway needs of a writer, whatever the strategy. Not restartable.

    States: ``new``, ``running``, ``draining``, ``closed``; ``failed`` when the collector itself died.
    """

    async def start(self) -> None:
        """Begin. The sink need not be up. Raises ``StateError`` if it was started or stopped before."""
        ...

    async def reserve(self, row_id: UUID | None = None, intent: Intent | None = None) -> Place | Refused:
        """A place for the row of a call, before the call costs anything, under a new id (UUIDv7) or
        ``row_id``. Waits at most ``max_block_s`` for room; may be cancelled, then no place leaks.

        With a journal, what ``intent`` makes is on disk on return."""
        ...

    def reserve_now(self) -> Place | None:
        """One more place for a call that has one, under a new id, if there is room in this very moment; never
        before those who wait for room. None is not counted as shed: the call has its row all the same."""
        ...

    async def put(self, row: UsageRecord) -> None:
        """Reserve and put in one, under the row's own id; without room the row is counted as shed."""
        ...

    async def flush(self, deadline_s: float) -> FlushReport:
        """Wait until the rows accepted so far are settled, at most ``deadline_s`` seconds. May be repeated
        and cancelled."""
        ...

    async def stop(self, deadline_s: float | None = None) -> StopReport:
        """Close the intake, deliver what there is, account for the rest; returns within ``deadline_s``
        plus the cancel grace. All callers share one drain and its report; a later caller may bring the
        deadline forward. Cancelling a caller does not cancel the drain."""
        ...

    def close_now(self) -> StopReport:
        """Account for everything at once, without waiting, and close. May be repeated."""
        ...

    def stats(self) -> WriterStats:
        """The ledger as it stands."""
        ...
