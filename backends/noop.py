"""``noop``: calls are served and no row is kept; the ledger is all zero."""

from __future__ import annotations

from uuid import UUID

from uuid_utils.compat import uuid7

from .errors import StateError
from .place import Intent, Place, Receipt, Refused
from .record import UsageRecord
from .reports import FlushReport, LedgerCounts, StopReport, WriterState, WriterStats


class NoopLogWriter:
    """See ``LogWriter``."""

    def __init__(self) -> None:
        self.boot_id = uuid7()
        self._state: WriterState = "new"

    async def start(self) -> None:
        """See ``LogWriter.start``."""
        if self._state != "new":
            raise StateError(f"a writer starts once, this one is {self._state}; build a new one")
        self._state = "running"

    async def reserve(self, row_id: UUID | None = None, intent: Intent | None = None) -> Place | Refused:
        """No place, and every call is served."""
        return Refused("noop", is_call_served=True)

    def reserve_now(self) -> Place | None:
        """A place that keeps nothing: no row is a reason to end a call here."""
        return Place(uuid7(), self)

    def accept(self, row: UsageRecord, row_id: UUID) -> Receipt | None:
        """Keeps nothing."""
        return None

    async def settled(self, receipt: Receipt) -> None:
        """There is never anything to wait for."""

    def release(self, row_id: UUID) -> None:
        """There is nothing to take back."""

    async def put(self, row: UsageRecord) -> None:
        """Keeps nothing."""

    async def flush(self, deadline_s: float) -> FlushReport:
        """There is never anything to wait for."""
        return FlushReport(outcome="ok")

    async def stop(self, deadline_s: float | None = None) -> StopReport:
        """See ``LogWriter.stop``."""
        return self.close_now()

    def close_now(self) -> StopReport:
        """See ``LogWriter.close_now``."""
        self._state = "closed"
        return StopReport(stats=self.stats(), outcome="drained", duration_s=0.0)

    def stats(self) -> WriterStats:
        """See ``LogWriter.stats``."""
        return WriterStats(state=self._state, strategy="noop", boot_id=self.boot_id, counts=LedgerCounts())
