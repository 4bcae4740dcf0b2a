"""``tallygate logs spool``: what lies on this machine's disk and not, or not only, in the sink.

Works beside running gateways and without one. Changes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backends import FolderReport, read_letters, read_spools

from ..settings import Settings
from .tables import table

if TYPE_CHECKING:
    from . import Kinds

COLUMNS = (
    *("kind", "folder", "owner", "rows", "intents", "batches", "damaged", "bytes"),
    *("oldest_s", "set_aside", "trouble"),
)


def add_to(kinds: Kinds) -> list[argparse.ArgumentParser]:
    """The parser, added."""
    parser = kinds.add_parser("spool", help="what lies in the spools and dead letters of this machine")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.set_defaults(run=run)
    return [parser]


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the reports; the exit status."""
    reports = (*read_spools(settings.spool.path), *read_letters(settings.dead_letters_folder))
    plain = [_plain(report, datetime.now(UTC)) for report in reports]
    if arguments.format == "json":
        text = json.dumps({"data": plain}, indent=2) + "\n"
    else:
        lines = ([_cell(each[name]) for name in COLUMNS] for each in plain)
        text = table(COLUMNS, lines, has_head=True) if plain else "no spool and no dead letters here\n"
    sys.stdout.write(text)
    return 0


def _plain(report: FolderReport, now: datetime) -> dict[str, Any]:
    oldest_s = (now - report.oldest_at).total_seconds() if report.oldest_at else None
    return {
        "kind": report.kind,
        "folder": str(report.folder),
        "owner": str(report.owner or "running") if report.is_owned else None,
        "rows": report.rows,
        "intents": report.intents,
        "batches": report.batches,
        "damaged": report.damaged,
        "bytes": report.bytes,
        "oldest_s": oldest_s,
        "set_aside": [path.name for path in report.corrupt],
        "trouble": report.trouble,
    }


def _cell(value: Any) -> Any:
    return (", ".join(value) or None) if isinstance(value, list) else value
