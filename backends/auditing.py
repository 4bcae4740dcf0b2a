"""An audit as it is done: read what is on this machine's disk, then the sink, and judge.

Takes folders and a sink; gives what was found. The order matters: files, boots, rows. Whatever was settled
before the one is seen in the next. Where numbers are missing all is read again: what was on its way from one
place to another the first time has arrived the second. Works beside running gateways, and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from .audit import BootAudit, Facts, audit_boots, confirmed
from .ranges import Ranges
from .sink import UsageAuditor
from .spool.reading import FolderReport, read_letters, read_spools

REPEATED_ROWS = 1000
"""Rows that are named, of one boot, where numbers have more than one."""


@dataclass(frozen=True, slots=True)
class Audited:
    """What was found, boot by boot, and the files that were read for it."""

    boots: tuple[BootAudit, ...]
    files: tuple[FolderReport, ...]

    @property
    def has_missing(self) -> bool:
        """Whether any row is in nobody's hands."""
        return any(boot.missing for boot in self.boots)


async def audit_usage(
    auditor: UsageAuditor, spools: Path, letters: Path, kept_since: datetime | None
) -> Audited:
    """Audit a sink and what lies under ``spools`` and ``letters``. ``kept_since``: the sink's retention
    removes rows of calls that began earlier. Raises ``UnreadableBoot`` and as the sink does; may be repeated
    and cancelled."""
    first = await _audited(auditor, spools, letters, kept_since)
    if not first.has_missing:
        return first
    second = await _audited(auditor, spools, letters, kept_since)
    return Audited(confirmed(first.boots, second.boots), second.files)


async def _audited(
    auditor: UsageAuditor, spools: Path, letters: Path, kept_since: datetime | None
) -> Audited:
    spooled = await asyncio.to_thread(read_spools, spools)
    dead = await asyncio.to_thread(read_letters, letters)
    boots = await auditor.read_boots()
    runs = await auditor.read_runs()
    twice = sorted({run.boot_id for run in runs if run.has_repeated})
    facts = Facts(
        boots=(*boots, *(boot for file in dead for boot in file.boots)),
        runs=runs,
        repeated={each: await auditor.read_repeated(each, REPEATED_ROWS) for each in twice},
        spooled=_numbers(spooled),
        dead_lettered=_numbers(dead),
        running=frozenset(file.owner for file in (*spooled, *dead) if file.owner),
        kept_since=kept_since,
    )
    return Audited(audit_boots(facts), (*spooled, *dead))


def _numbers(files: Sequence[FolderReport]) -> Mapping[UUID, Ranges]:
    numbers: dict[UUID, Ranges] = {}
    for file in files:
        for boot_id, some in file.numbers.items():
            numbers[boot_id] = numbers.get(boot_id, Ranges()) | some
    return numbers
