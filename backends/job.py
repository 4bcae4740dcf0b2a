"""What the rooms of the core hand to each other: a batch on its way, and what a disk has to answer for.

A job is nobody's property: the ledger has its rows, whoever has the job only knows what was tried with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from .record import Batch


@dataclass(slots=True, eq=False)
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


class WaitingJobs:
    """Those that were tried, or came from a disk, and wait for their time; whoever takes one has it alone.

    A job that must spill is not the sink's, and only ``take`` finds it.
    """

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def add(self, *jobs: Job) -> None:
        """These wait from now on."""
        self._jobs.extend(jobs)

    def take(self, is_wanted: Callable[[Job], bool]) -> Job | None:
        """The oldest that ``is_wanted``."""
        return self._taken(next(filter(is_wanted, self._jobs), None))

    def take_due(self, now: float) -> Job | None:
        """The one whose time came first, if it has come."""
        due = min(self._for_sink(), key=lambda job: job.not_before, default=None)
        return self._taken(due) if due is not None and due.not_before <= now else None

    def take_smallest(self) -> Job | None:
        """The one with the fewest rows."""
        return self._taken(min(self._for_sink(), key=lambda job: job.rows, default=None))

    def take_all(self) -> list[Job]:
        """Every one."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def hurry(self, now: float) -> None:
        """Everybody's time has come."""
        for job in self._jobs:
            job.not_before = now

    def times(self) -> list[float]:
        """When each may be sent."""
        return [job.not_before for job in self._for_sink()]

    def _for_sink(self) -> Iterator[Job]:
        return (job for job in self._jobs if not job.must_spill)

    def _taken(self, job: Job | None) -> Job | None:
        if job is not None:
            self._jobs.remove(job)
        return job


class Disk(Protocol):
    """What the core needs of a spool: room, and to be told which rows it need not keep any longer."""

    @property
    def room(self) -> int:
        """How many more rows fit, at least."""
        ...

    def forget(self, rows: Iterable[UUID]) -> None:
        """These rows are safe elsewhere."""
        ...

    def holds_any(self, rows: Iterable[UUID]) -> bool:
        """Whether it has, or may have, any of these rows beside us."""
        ...
