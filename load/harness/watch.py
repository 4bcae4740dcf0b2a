"""How much processes use, once a second from /proc, beside the gateway's own ledger.

CPU is what the time of all threads grew by since the last look, in percent of one core; of a process and all
that it started.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOK_S = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
Ledger = Callable[[], Awaitable[Mapping[str, Any] | None]]


@dataclass
class Watch:
    """``pids`` are followed by name, and may change at any time. ``samples`` are in order."""

    ledger: Ledger
    pids: dict[str, int] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    _ticks: dict[str, tuple[int, float, int]] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    @asynccontextmanager
    async def running(self, interval_s: float = LOOK_S) -> AsyncIterator[None]:
        """While it lasts, a sample each ``interval_s``."""
        looking = asyncio.create_task(self._look_on(interval_s), name="watch")
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait({looking})

    async def _look_on(self, interval_s: float) -> None:
        while True:
            ledger = await self.ledger()
            sample: dict[str, Any] = {"t": round(time.monotonic() - self._began, 2), **self.usage()}
            if ledger is not None:
                names = ("accepted", "queued", "in_flight", "spooled")
                sample["ledger"] = {name: ledger[name] for name in names}
            self.samples.append(sample)
            await asyncio.sleep(interval_s)

    def usage(self) -> dict[str, dict[str, float]]:
        """``cpu`` in percent since the last look, ``rss_mb``, of each that is there."""
        found = {}
        for name, pid in self.pids.items():
            if (used := _used(pid)) is None:
                continue
            ticks, rss = used
            now = time.monotonic()
            before, at, whose = self._ticks.get(name, (ticks, now, pid))
            self._ticks[name] = (ticks, now, pid)
            each = {"rss_mb": round(rss / 1024 / 1024, 1)}
            if now > at and whose == pid:
                each["cpu"] = round(100 * max(0, ticks - before) / _TICKS / (now - at), 1)
            found[name] = each
        return found

    def told(self) -> dict[str, dict[str, float]]:
        """Averages and maxima of everything that was followed."""
        names = sorted({name for each in self.samples for name in each} - {"t", "ledger"})
        return {name: self._told(name) for name in names}

    def _told(self, name: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for what in ("cpu", "rss_mb"):
            values = [each[name][what] for each in self.samples if what in each.get(name, {})]
            if values:
                found |= {f"{what}_avg": round(sum(values) / len(values), 1), f"{what}_max": max(values)}
        return found


def _used(pid: int) -> tuple[int, int] | None:
    """Ticks and resident bytes, of ``pid`` and its descendants; None when it is gone."""
    family: list[int] = importlib.import_module("servers.base").family(pid)
    each = [used for used in map(_used_alone, family) if used is not None]
    return (sum(ticks for ticks, _ in each), sum(rss for _, rss in each)) if each else None


def _used_alone(pid: int) -> tuple[int, int] | None:
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        if stat[0] != "Z":
            return int(stat[11]) + int(stat[12]), int(stat[21]) * _PAGE
    return None
