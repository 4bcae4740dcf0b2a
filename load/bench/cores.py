"""Who has which core, and what a program used of it. Linux only: it reads /proc.

Gives commands that stay on their core; takes the number of a process and counts it with all it started.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cores:
    """``measured`` is for the server under test alone, ``load`` for everything else."""

    measured: frozenset[int]
    load: frozenset[int]

    @classmethod
    def split(cls, allowed: Collection[int]) -> Cores:
        """The last of ``allowed`` is measured. With one core alone, all share it."""
        *others, last = sorted(allowed)
        return cls(frozenset({last}), frozenset(others or {last}))

    @property
    def are_shared(self) -> bool:
        """Whether nobody has a core to himself, so that only figures per CPU second mean anything."""
        return bool(self.measured & self.load)

    def both(self) -> frozenset[int]:
        """Both together."""
        return self.measured | self.load


def on(cores: Collection[int], *command: str) -> tuple[str, ...]:
    """``command``, kept on ``cores`` with all that it starts; its process keeps its number."""
    return ("taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command)


@dataclass(frozen=True)
class Used:
    """CPU seconds and resident bytes of a program and of all it started."""

    cpu_s: float
    rss_bytes: int


def used(pid: int) -> Used:
    """What the program ``pid`` has used so far. Raises ``ProcessLookupError``: it is gone."""
    found = dict(_processes())
    if pid not in found:
        raise ProcessLookupError(f"process {pid} is gone")
    family = list(_family(pid, found))
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in family)
    return Used(ticks / TICKS, sum(int(fields[21]) for fields in family) * PAGE_BYTES)


def _processes() -> Iterator[tuple[int, list[str]]]:
    """Each process with what its ``stat`` says after its name."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
                continue
            yield int(folder.name), text.rpartition(")")[2].split()


def _family(pid: int, found: dict[int, list[str]]) -> Iterator[list[str]]:
    children = defaultdict(list)
    for number, fields in found.items():
        children[int(fields[1])].append(number)
    waiting = [pid]
    while waiting:
        number = waiting.pop()
        waiting.extend(children[number])
        yield found[number]
