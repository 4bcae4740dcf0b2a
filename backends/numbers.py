"""Which numbers of which boots a sink has: what ``logs audit`` asks, as plain data.

Takes the boot and the number of each row, in any order; gives runs, of which there is one per boot where no
number is missing. So memory grows with what is missing, not with the rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Run:
    """The numbers ``first`` to ``last`` of a boot, each of which is stored, in ``rows`` rows: in more than
    there are numbers, if one is stored twice. The newest of these calls began at ``newest`` (UTC)."""

    boot_id: UUID
    first: int
    last: int
    rows: int
    newest: datetime

    @property
    def has_repeated(self) -> bool:
        """Whether a number in it has more than one row."""
        return self.rows > self.last - self.first + 1


@dataclass(frozen=True, slots=True, order=True)
class NumberedRow:
    """A row by its number within its boot, and by its id."""

    seq: int
    id: UUID


class Numbered(Protocol):
    """The part of a row that is counted here."""

    @property
    def id(self) -> UUID: ...

    @property
    def boot_id(self) -> UUID | None: ...

    @property
    def seq(self) -> int: ...

    @property
    def timestamp(self) -> datetime: ...


@dataclass(slots=True)
class _Growing:
    first: int
    last: int
    rows: int
    newest: datetime

    def grow(self, first: int, last: int, rows: int, newest: datetime) -> None:
        self.first, self.last = min(self.first, first), max(self.last, last)
        self.rows += rows
        self.newest = max(self.newest, newest)


class RunCounter:
    """The runs of all boots, for sinks whose database cannot find them by itself. Quick where the rows of a
    boot come more or less in order."""

    def __init__(self) -> None:
        self._boots: dict[UUID, list[_Growing]] = {}

    def add(self, boot_id: UUID, seq: int, timestamp: datetime) -> bool:
        """Count one row; whether it is the first with its number. Numbers below 1 are none."""
        runs = self._boots.setdefault(boot_id, [])
        at = len(runs) if not runs or runs[-1].first <= seq else bisect_right(runs, seq, key=_first)
        before = runs[at - 1] if at else None
        if before is not None and seq <= before.last:
            before.grow(seq, seq, 1, timestamp)
            return False
        if before is not None and seq == before.last + 1:
            before.grow(seq, seq, 1, timestamp)
        else:
            before = _Growing(seq, seq, 1, timestamp)
            runs.insert(at, before)
            at += 1
        if at < len(runs) and runs[at].first == seq + 1:
            behind = runs.pop(at)
            before.grow(behind.first, behind.last, behind.rows, behind.newest)
        return True

    def runs(self) -> tuple[Run, ...]:
        """All of them, by boot and number."""
        return tuple(
            Run(boot_id, each.first, each.last, each.rows, each.newest)
            for boot_id in sorted(self._boots)
            for each in self._boots[boot_id]
        )


def runs_of(rows: Iterable[Numbered]) -> tuple[Run, ...]:
    """The runs of ``rows``; those that no writer numbered are none of them."""
    counter = RunCounter()
    for row in rows:
        if row.boot_id is not None and row.seq > 0:
            counter.add(row.boot_id, row.seq, row.timestamp)
    return counter.runs()


def repeated_of(rows: Iterable[Numbered], boot_id: UUID, limit: int) -> tuple[NumberedRow, ...]:
    """The first ``limit`` of the rows of ``boot_id`` that share their number, by number and id."""
    ids: dict[int, list[UUID]] = {}
    for row in rows:
        if row.boot_id == boot_id and row.seq > 0:
            ids.setdefault(row.seq, []).append(row.id)
    shared = (NumberedRow(seq, row_id) for seq, those in ids.items() if len(those) > 1 for row_id in those)
    return tuple(sorted(shared))[:limit]


def _first(run: _Growing) -> int:
    return run.first
