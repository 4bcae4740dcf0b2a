"""``tallygate logs audit``: is every row that was ever accepted still somewhere, once?

Works beside running gateways and without one. Changes nothing. Knows the files of this machine alone: what
the spool of another one holds counts as missing here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from backends import Audited, FolderReport, LogSink, UnreadableBoot, UsageAuditor, audit_usage

from ..audit_text import FINDING_COLUMNS, audit_json, finding_lines, totals_line
from ..settings import Settings, sink_options
from .sink import Refused, with_sink
from .tables import table

if TYPE_CHECKING:
    from . import Kinds

EXIT_MISSING = 1
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
    found: list[Audited] = []

    async def use(sink: LogSink) -> None:
        found.append(await _audited(sink, settings))

    if status := with_sink(settings, use, migrates=False, read_timeout_s=PATIENCE_S):
        return status
    (audited,) = found
    sys.stdout.write(_json(audited) if arguments.format == "json" else _table(audited))
    for warning in _warnings(audited.files):
        sys.stderr.write(f"{warning}\n")
    return EXIT_MISSING if audited.has_missing else 0


async def _audited(sink: LogSink, settings: Settings) -> Audited:
    if not sink.capabilities.audits_usage or not isinstance(sink, UsageAuditor):
        raise Refused("it cannot be audited")
    try:
        return await audit_usage(
            sink, settings.spool.path, settings.dead_letters_folder, _kept_since(settings)
        )
    except UnreadableBoot as error:
        raise Refused(str(error)) from error


def _kept_since(settings: Settings) -> datetime | None:
    days = getattr(sink_options(settings), "retention_days", None)
    return datetime.now(UTC) - timedelta(days=days) if days else None


def _json(audited: Audited) -> str:
    return json.dumps(audit_json(audited.boots), indent=2) + "\n"


def _table(audited: Audited) -> str:
    lines = list(finding_lines(audited.boots))
    head = table(FINDING_COLUMNS, lines, has_head=True) if lines else ""
    return f"{head}{totals_line(audited.boots)}\n"


def _warnings(files: Sequence[FolderReport]) -> Iterator[str]:
    """What makes the findings less than certain."""
    for file in files:
        if file.trouble:
            yield f"{file.folder}: cannot be read ({file.trouble}); its rows count as missing"
        if file.damaged:
            yield f"{file.folder}: {file.damaged} rows are damaged, and count as missing"
        for path in file.corrupt:
            yield f"{path}: was set aside; rows that only it has count as missing"
        if file.is_owned and file.owner is None:
            yield f"{file.folder}: belongs to a running gateway whose boot is not known"
