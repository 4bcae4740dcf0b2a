"""What an audit found, as JSON values and as lines of a table. Numbers of rows are told as ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from backends import BootAudit, Ranges

FINDING_COLUMNS = ("boot_id", "started_at", "finding", "count", "numbers", "remark")
SPANS = 20
"""Ranges that a line of the table names; JSON has all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know of one boot. ``kind``: ``missing``, ``missing_tail``, ``repeated``,
    ``tail_unknown``, ``abandoned`` or ``running``."""

    boot: BootAudit
    kind: str
    numbers: Ranges = Ranges()
    remark: str = ""


def findings(boots: Iterable[BootAudit]) -> list[Finding]:
    """What there is to say, boot by boot; nothing of one that is whole."""
    return [finding for boot in boots for finding in _of(boot)]


def totals(boots: Sequence[BootAudit]) -> dict[str, int]:
    """How many boots there are, and how many numbers are where."""
    places = ("stored", "spooled", "dead_lettered", "abandoned", "under_way", "retired", "missing")
    counts = {name: sum(len(getattr(boot, name)) for boot in boots) for name in places}
    repeated = sum(len({row.seq for row in boot.repeated}) for boot in boots)
    return {
        "boots": len(boots),
        "numbers": sum(boot.known_to for boot in boots),
        **counts,
        "repeated": repeated,
    }


def audit_json(boots: Sequence[BootAudit]) -> dict[str, Any]:
    """All of it, as JSON values."""
    return {"totals": totals(boots), "findings": [_plain(finding) for finding in findings(boots)]}


def finding_lines(boots: Sequence[BootAudit]) -> Iterator[Sequence[Any]]:
    """A line under ``FINDING_COLUMNS`` for each finding."""
    for each in findings(boots):
        count = len(each.numbers) or None
        yield str(each.boot.boot_id), _when(each.boot.started_at), each.kind, count, _short(each), each.remark


def totals_line(boots: Sequence[BootAudit]) -> str:
    """The sum, for people."""
    counts = totals(boots)
    every = f"{counts.pop('boots')} boots, {counts.pop('numbers')} numbers: "
    return every + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())


def _of(boot: BootAudit) -> Iterator[Finding]:
    if gaps := boot.missing - boot.missing_tail:
        yield Finding(boot, "missing", gaps)
    if boot.missing_tail:
        yield Finding(boot, "missing_tail", boot.missing_tail, f"closed with {boot.known_to}")
    for seq, rows in groupby(boot.repeated, key=lambda row: row.seq):
        yield Finding(boot, "repeated", Ranges.of([seq]), ", ".join(str(row.id) for row in rows))
    if boot.abandoned:
        yield Finding(boot, "abandoned", boot.abandoned)
    if boot.state == "never_closed":
        yield Finding(boot, "tail_unknown", remark=f"never closed, tail unknown after {boot.known_to}")
    if boot.state == "running":
        under_way = " under way" if boot.under_way else ""
        yield Finding(boot, "running", boot.under_way, f"running{',' * bool(under_way)}{under_way}")


def _plain(finding: Finding) -> dict[str, Any]:
    boot = finding.boot
    return {
        "boot_id": str(boot.boot_id),
        "started_at": _when(boot.started_at),
        "state": boot.state,
        "known_to": boot.known_to,
        "finding": finding.kind,
        "count": len(finding.numbers),
        "numbers": str(finding.numbers),
        "remark": finding.remark,
    }


def _short(finding: Finding) -> str | None:
    spans = finding.numbers.spans
    more = f" and {len(spans) - SPANS} more" if len(spans) > SPANS else ""
    return f"{Ranges(spans[:SPANS])}{more}" or None


def _when(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z") if moment else None
