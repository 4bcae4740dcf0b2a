"""Which rows are missing, and which are there twice: found from numbers alone, whatever the sink.

Takes what sink, spool and dead letters hold, and which boots still run; gives findings. Pure: reads nothing,
asks nobody. A boot numbers its rows 1, 2, 3 … as it accepts them; every number has to be somewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias
from uuid import UUID

from .numbers import NumberedRow, Run
from .ranges import Ranges
from .record import Boot

LONGEST_CALL = timedelta(hours=1)
"""A row is numbered when its call ends and removed by when it began: near the cutoff the order of numbers
says nothing of which of them retention took."""

State: TypeAlias = Literal["closed", "running", "never_closed"]
_NOTHING = Ranges()


class UnreadableBoot(Exception):
    """A boot whose abandoned numbers somebody else has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was read, files first: a row may go from a file to the sink meanwhile, never back unseen.

    ``boots``: of the sink, and those whose close only a file has. ``spooled``, ``dead_lettered``: numbers by
    boot. ``repeated``: the rows that share a number, by boot. ``running``: boots of this machine whose
    process is there. ``kept_since``: retention removes rows of calls that began earlier; None keeps all.
    """

    boots: Sequence[Boot] = ()
    runs: Sequence[Run] = ()
    repeated: Mapping[UUID, Sequence[NumberedRow]] = field(default_factory=dict)
    spooled: Mapping[UUID, Ranges] = field(default_factory=dict)
    dead_lettered: Mapping[UUID, Ranges] = field(default_factory=dict)
    running: frozenset[UUID] = frozenset()
    kept_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BootAudit:
    """One boot, and where each of its numbers is.

    ``known_to``: the greatest number that anybody knows of. ``spooled`` and ``dead_lettered`` are those that
    the sink does not have. ``missing`` is in nobody's hands; ``missing_tail`` is the part of it behind the
    last number that is somewhere. ``under_way``: absent, and the boot runs. ``retired``: absent, and old
    enough for retention to have taken it. ``repeated``: rows that share a number.
    """

    boot_id: UUID
    started_at: datetime | None
    state: State
    known_to: int
    stored: Ranges
    spooled: Ranges = _NOTHING
    dead_lettered: Ranges = _NOTHING
    abandoned: Ranges = _NOTHING
    under_way: Ranges = _NOTHING
    retired: Ranges = _NOTHING
    missing: Ranges = _NOTHING
    missing_tail: Ranges = _NOTHING
    repeated: tuple[NumberedRow, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing to say about it."""
        return self.state == "closed" and not (self.missing or self.repeated or self.abandoned)


def audit_boots(facts: Facts) -> tuple[BootAudit, ...]:
    """Every boot that anybody knows of, the oldest first. Raises ``UnreadableBoot``."""
    boots = _merged(facts.boots)
    runs: dict[UUID, list[Run]] = {}
    for run in facts.runs:
        runs.setdefault(run.boot_id, []).append(run)
    known = {*boots, *runs, *facts.spooled, *facts.dead_lettered, *facts.running}
    found = (_audited(boot_id, boots.get(boot_id), runs.get(boot_id, []), facts) for boot_id in known)
    return tuple(sorted(found, key=lambda each: (each.started_at or _EARLIEST, each.boot_id)))


def confirmed(first: Iterable[BootAudit], second: Iterable[BootAudit]) -> tuple[BootAudit, ...]:
    """``second``, with those numbers alone missing that were so the first time, too. What one reading misses
    because a row was on its way, from a file to another or to the sink, the next one finds."""
    before = {each.boot_id: each.missing for each in first}
    return tuple(_still_missing(each, before.get(each.boot_id, _NOTHING)) for each in second)


# --- one boot


def _audited(boot_id: UUID, boot: Boot | None, runs: Sequence[Run], facts: Facts) -> BootAudit:
    stored = Ranges.covering((run.first, run.last) for run in runs)
    spooled = facts.spooled.get(boot_id, _NOTHING)
    dead_lettered = facts.dead_lettered.get(boot_id, _NOTHING)
    gave_up = _abandoned(boot)
    present = stored | spooled | dead_lettered
    known_to = max(present.last, gave_up.last, (boot and boot.last_seq) or 0)
    absent = Ranges.covering([(1, known_to)]) - present
    abandoned = absent & gave_up
    absent = absent - abandoned
    retired = absent & _retired(boot_id, boot, runs, known_to, facts.kept_since)
    absent = absent - retired
    state = _state(boot_id, boot, facts.running)
    missing = _NOTHING if state == "running" else absent
    return BootAudit(
        boot_id=boot_id,
        started_at=boot.started_at if boot else _minted_at(boot_id),
        state=state,
        known_to=known_to,
        stored=stored,
        spooled=spooled - stored,
        dead_lettered=dead_lettered - stored - spooled,
        abandoned=abandoned,
        under_way=absent - missing,
        retired=retired,
        missing=missing,
        missing_tail=missing - Ranges.covering([(1, present.last)]),
        repeated=tuple(facts.repeated.get(boot_id, ())),
    )


def _abandoned(boot: Boot | None) -> Ranges:
    try:
        return Ranges.parse(boot.abandoned) if boot else _NOTHING
    except ValueError as error:
        assert boot
        raise UnreadableBoot(f"boot {boot.id}: its abandoned numbers are {boot.abandoned!r}") from error


def _state(boot_id: UUID, boot: Boot | None, running: frozenset[UUID]) -> State:
    if boot is not None and boot.closed_at is not None:
        return "closed"
    return "running" if boot_id in running else "never_closed"


def _retired(
    boot_id: UUID, boot: Boot | None, runs: Sequence[Run], known_to: int, kept_since: datetime | None
) -> Ranges:
    """Numbers that retention may have taken: of a boot that began before the cutoff those below the first
    one that is certainly younger; all, where there is none such."""
    if kept_since is None:
        return _NOTHING
    certain = kept_since + LONGEST_CALL
    began = boot.started_at if boot else _minted_at(boot_id)
    if began is not None and began >= certain:
        return _NOTHING
    young = [run.first for run in runs if run.newest >= certain]
    return Ranges.covering([(1, min(young) - 1 if young else known_to)])


def _still_missing(found: BootAudit, before: Ranges) -> BootAudit:
    both = found.missing & before
    return replace(found, missing=both, missing_tail=found.missing_tail & both)


# --- all boots


def _merged(boots: Iterable[Boot]) -> dict[UUID, Boot]:
    """One of each: what the sink was not told yet counts as if it were."""
    merged: dict[UUID, Boot] = {}
    for boot in boots:
        known = merged.get(boot.id)
        merged[boot.id] = boot if known is None else _one(known, boot)
    return merged


def _one(known: Boot, told: Boot) -> Boot:
    return replace(
        known,
        closed_at=known.closed_at or told.closed_at,
        last_seq=known.last_seq if told.last_seq is None else told.last_seq,
        abandoned=known.abandoned or told.abandoned,
    )


_EARLIEST = datetime.min.replace(tzinfo=UTC)


def _minted_at(boot_id: UUID) -> datetime | None:
    """When a boot that nobody recorded began: its id tells."""
    if boot_id.version != 7:
        return None
    return datetime.fromtimestamp((boot_id.int >> 80) / 1000, UTC)
