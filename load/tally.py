"""The count: what was promised to clients, beside what the database holds. No network, no gateway code.

Takes the calls as their clients saw them and the rows as the file has them; gives what does not fit, and
the verdict.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias
from uuid import UUID

Kind: TypeAlias = Literal["chat", "stream", "leave", "embedding"]
"""``leave``: a stream whose client hangs up in the middle."""
Outcome: TypeAlias = Literal["waiting", "answered", "left", "refused", "broken", "unreached"]
"""``left``: the client hung up, as it meant to. ``refused``: an error without a promise.
``broken``: the answer began and did not end well. ``unreached``: there was no answer at all."""


@dataclass(slots=True)
class Call:
    """One call as its client saw it. ``promised`` is the answer's x-usage-id."""

    request_id: str
    kind: Kind
    outcome: Outcome = "waiting"
    promised: UUID | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of ``usage_logs``, as far as the count needs it."""

    id: UUID
    request_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Count:
    """Promised ids without a row, ids and calls with several rows, rows that no call explains."""

    missing: Collection[UUID]
    duplicate: Collection[UUID | str]
    unknown: Collection[UUID]


def count(calls: Iterable[Call], rows: Collection[Row]) -> Count:
    by_request = {call.request_id: call for call in calls}
    promised = {call.promised for call in by_request.values() if call.promised}
    ids = Counter(row.id for row in rows)
    requests = Counter(row.request_id for row in rows if row.status != "absorbed")
    return Count(
        missing=sorted(promised - ids.keys()),
        duplicate=[key for each in (ids, requests) for key, times in each.items() if times > 1],
        unknown=[row.id for row in rows if not _explains(by_request.get(row.request_id), row)],
    )


def _explains(call: Call | None, row: Row) -> bool:
    if call is None:
        return False
    return call.promised in (None, row.id) or row.status == "absorbed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Everything the table shows and the verdict needs. ``seen_by_provider`` are
    request ids, ``report`` is the gateway's shutdown report."""

    calls: Sequence[Call]
    interrupted: Sequence[Call]
    failed_early: Sequence[Call]
    rows: Collection[Row]
    seen_by_provider: Sequence[str]
    exit_status: int
    report: Mapping[str, Any]

    def table(self) -> list[tuple[str, object]]:
        outcomes = Counter(call.outcome for call in self.calls)
        streams = sum(call.kind in ("stream", "leave") for call in self.interrupted)
        off = count(self.calls, self.rows)
        return [
            ("calls sent", len(self.calls)),
            ("answered in full", outcomes["answered"]),
            ("client hung up in mid-stream", outcomes["left"]),
            ("refused or not reached after SIGTERM", outcomes["refused"] + outcomes["unreached"]),
            ("cut short", outcomes["broken"]),
            ("running at SIGTERM", f"{len(self.interrupted)} ({streams} streams)"),
            ("calls the provider saw", len(self.seen_by_provider)),
            ("rows promised (x-usage-id)", sum(call.promised is not None for call in self.calls)),
            ("rows stored", len(self.rows)),
            ("missing", len(off.missing)),
            ("duplicate", len(off.duplicate)),
            ("unknown", len(off.unknown)),
            ("gateway exit status", self.exit_status),
        ]

    def problems(self) -> list[str]:
        """Why this proves nothing; empty when it is a proof."""
        off = count(self.calls, self.rows)
        requests = {row.request_id for row in self.rows}
        answered = [call for call in self.calls if call.outcome == "answered"]
        checks = {
            "promised calls have no row": off.missing,
            "rows are there twice": off.duplicate,
            "rows belong to no call": off.unknown,
            "answers came without a promise (x-usage-id)": any(not call.promised for call in answered),
            "no call was answered": not answered,
            "calls failed before SIGTERM": self.failed_early,
            "answers were cut short": any(call.outcome == "broken" for call in self.calls),
            "no call was running at SIGTERM": not self.interrupted,
            "calls that the provider saw have no row": set(self.seen_by_provider) - requests,
            "the provider saw a call twice": len(set(self.seen_by_provider)) < len(self.seen_by_provider),
            "the gateway's exit status is not 0": self.exit_status != 0,
            "the shutdown report does not add up": self.report.get("unaccounted") != 0,
        }
        return [problem for problem, is_so in checks.items() if is_so]


def read_rows(path: Path) -> list[Row]:
    """The rows straight from the file. Raises ``FileNotFoundError``; a reader must not create one."""
    if not path.exists():
        raise FileNotFoundError(path)
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT id, request_id, status FROM usage_logs").fetchall()
    return [Row(as_uuid(id_), request_id, status) for id_, request_id, status in found]


def as_uuid(value: bytes | str) -> UUID:
    return UUID(bytes=value) if isinstance(value, bytes) else UUID(value)
