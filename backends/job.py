"""What the rooms of the core hand to each other: a batch on its way, and what a disk has to answer for.

A job is nobody's property: the ledger has its rows, whoever has the job only knows what was tried with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from .record import Batch


@dataclass(slots=True)
class Job:
    """A batch to send, or, without one, a ping. ``since`` and ``not_before`` are loop time in seconds.

    ``must_spill``: the next to have the rows is the spool, not the sink.
    """

    batch: Batch | None
    since: float
    attempts: int = 0
    not_before: float = 0.0
    must_spill: bool = False

    @property
    def rows(self) -> int:
        return len(self.batch.rows) if self.batch else 0


class Disk(Protocol):
    """What the dispatcher needs of a spool: to be told which rows it need not keep any longer."""

    def forget(self, rows: Iterable[UUID]) -> None:
        """These rows are safe elsewhere."""
        ...

    def holds_any(self, rows: Iterable[UUID]) -> bool:
        """Whether it has, or may have, any of these rows beside us."""
        ...
