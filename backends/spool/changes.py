"""What one commit of the spool does: gathered on the event loop, applied on a thread, whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from ..record import Batch, UsageRecord


@dataclass(slots=True)
class Changes:
    """What one transaction does, in this order."""

    intents: list[UsageRecord] = field(default_factory=list)
    rows: list[UsageRecord] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    numbered: list[Batch] = field(default_factory=list)
    """Batches that are there, with rows that have a number now."""
    dropped_intents: list[UUID] = field(default_factory=list)
    dropped_rows: list[UUID] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.grows or any((self.numbered, self.dropped_intents, self.dropped_rows))

    @property
    def grows(self) -> bool:
        """Whether the file will need more room."""
        return bool(self.intents or self.rows or self.batches)

    @property
    def rows_written(self) -> int:
        """How many rows and intents it writes."""
        in_batches = sum(len(batch.rows) for batch in (*self.batches, *self.numbered))
        return len(self.intents) + len(self.rows) + in_batches

    def only_drops(self) -> Changes:
        """What of it takes no room."""
        return Changes(
            numbered=self.numbered, dropped_intents=self.dropped_intents, dropped_rows=self.dropped_rows
        )
