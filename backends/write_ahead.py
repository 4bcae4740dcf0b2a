"""``batch`` with a journal: the intent is on disk before the provider is called, the row before its answer.

What the process holds in memory the disk holds too, until the sink has it. While the disk is ailing, calls go
on without a journal and readiness says so.
"""

from __future__ import annotations

from uuid import UUID

from msgspec import structs

from .place import Intent, Place, Receipt, Refused
from .record import UsageRecord
from .sanitise import sanitise
from .waiting import wait_for_end
from .writer import BatchLogWriter

JOURNAL_S = 1.0
"""A disk that takes longer is ailing: no call waits for it any longer; see ``Spool.is_stuck``."""


class WriteAheadLogWriter(BatchLogWriter):
    """Needs a spool. See ``LogWriter``."""

    async def reserve(self, row_id: UUID | None = None, intent: Intent | None = None) -> Place | Refused:
        """See ``LogWriter.reserve``; waits for the group commit of ``intent``."""
        place = await super().reserve(row_id)
        if intent is None or isinstance(place, Refused) or self._spool is None:
            return place
        try:
            row = structs.replace(sanitise(intent()), id=place.id, boot_id=None, seq=0)
            await self._written(self._spool.intend(row))
        except BaseException:
            place.release()
            raise
        return place

    async def settled(self, receipt: Receipt) -> None:
        """Wait for the group commit of the row, at most ``JOURNAL_S``."""
        await self._written(receipt)

    async def _written(self, receipt: Receipt) -> None:
        if self._spool is None:
            return
        if not self._spool.is_stuck:
            await wait_for_end(receipt, JOURNAL_S)
        if not receipt.done() or receipt.exception():  # nobody cancels a receipt
            self._spool.note_skipped()

    def release(self, row_id: UUID) -> None:
        """Take an unused place back, and its intent."""
        super().release(row_id)
        if self._spool is not None:
            self._spool.forget_intent(row_id)

    def _receipt(self, row: UsageRecord) -> Receipt | None:
        if self._spool is None or self._state == "closed":
            return None
        return self._spool.journal(row)
