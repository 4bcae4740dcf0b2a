"""``tallygate logs audit``: is every row that was ever accepted still somewhere, once?

Reads the files of this machine first, then the sink, and where numbers are missing both again: what was on
its way from one to the other the first time has arrived the second. Works beside running gateways. Changes
nothing. A gateway on another machine has files of its own: there, its unclosed boots are better judged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from backends import (
    BootAudit,
    Facts,
    FolderReport,
    LogSink,
    Ranges,
    UnreadableBoot,
    UsageAuditor,
    audit_boots,
    confirmed,
    read_letters,
    read_spools,
)

from ..audit_text import FINDING_COLUMNS, audit_json, finding_lines, totals_line
from ..settings import Settings, sink_options
from .sink import Refused, with_sink
from .tables import table

if TYPE_CHECKING:
    from . import Kinds

EXIT_MISSING = 1
REPEATED_ROWS = 1000
"""Rows that are named, of one boot, where numbers have more than one."""
PATIENCE_S = 600.0
"""For one answer of a sink that has to look at every row."""


def add_to(kinds: Kinds) -> list[argparse.ArgumentParser]:
    """The parser, added."""
    parser = kinds.add_parser("audit", help="find rows that are missing, or there twice")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.set_defaults(run=run)
    return [parser]


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what was found; the exit status: 1 if rows are missing, 0 if none, 2 for trouble."""
    auditing = Auditing(settings)
    status = with_sink(settings, auditing.run, migrates=False, read_timeout_s=PATIENCE_S)
    if status:
        return status
    boots = auditing.boots
    if arguments.format == "json":
        sys.stdout.write(json.dumps(audit_json(boots), indent=2) + "\n")
    else:
        lines = list(finding_lines(boots))
        sys.stdout.write(table(FINDING_COLUMNS, lines, has_head=True) if lines else "")
        sys.stdout.write(f"{totals_line(boots)}\n")
    for warning in auditing.warnings():
        sys.stderr.write(f"{warning}\n")
    return EXIT_MISSING if any(boot.missing for boot in boots) else 0


class Auditing:
    """One audit: what was read, and what came of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files: tuple[FolderReport, ...] = ()
        self.boots: tuple[BootAudit, ...] = ()

    async def run(self, sink: LogSink) -> None:
        """Read and judge; once more if numbers are missing. Raises ``Refused`` and as the sink does."""
        if not sink.capabilities.audits_usage or not isinstance(sink, UsageAuditor):
            raise Refused("this sink cannot be audited")
        try:
            self.boots = audit_boots(await self._read(sink))
            if any(boot.missing for boot in self.boots):
                self.boots = confirmed(self.boots, audit_boots(await self._read(sink)))
        except UnreadableBoot as error:
            raise Refused(str(error)) from error

    def warnings(self) -> Iterable[str]:
        """What makes the findings less than certain."""
        for file in self._files:
            if file.trouble:
                yield f"{file.folder}: cannot be read ({file.trouble}); rows in there count as missing"
            if file.damaged:
                yield f"{file.folder}: {file.damaged} rows are damaged, and count as missing"
            for path in file.corrupt:
                yield f"{path}: was set aside; rows in there count as missing"
            if file.is_owned and file.owner is None:
                yield f"{file.folder}: a gateway runs there whose boot is not known"

    async def _read(self, auditor: UsageAuditor) -> Facts:
        """The order matters: files, boots, rows. Whatever was settled before the one is seen in the next."""
        spools, letters = await asyncio.to_thread(self._read_files)
        self._files = (*spools, *letters)
        boots = await auditor.read_boots()
        runs = await auditor.read_runs()
        twice = sorted({run.boot_id for run in runs if run.has_repeated})
        return Facts(
            boots=(*boots, *(boot for file in letters for boot in file.boots)),
            runs=runs,
            repeated={each: await auditor.read_repeated(each, REPEATED_ROWS) for each in twice},
            spooled=_numbers(spools),
            dead_lettered=_numbers(letters),
            running=frozenset(file.owner for file in self._files if file.owner),
            kept_since=self._kept_since(),
        )

    def _read_files(self) -> tuple[tuple[FolderReport, ...], tuple[FolderReport, ...]]:
        spools = read_spools(self._settings.spool.path)
        return spools, read_letters(self._settings.dead_letters_folder)

    def _kept_since(self) -> datetime | None:
        days = getattr(sink_options(self._settings), "retention_days", None)
        return datetime.now(UTC) - timedelta(days=days) if days else None


def _numbers(files: Sequence[FolderReport]) -> Mapping[UUID, Ranges]:
    numbers: dict[UUID, Ranges] = {}
    for file in files:
        for boot_id, some in file.numbers.items():
            numbers[boot_id] = numbers.get(boot_id, Ranges()) | some
    return numbers
