"""Case 56 in virtual time: ten minutes without the sink, at a rate that no memory could hold."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import pytest
from disks import rows_on_disk, spooling

from backends.memory import MemoryDatabase
from backends.testing import fail, virtual_clock
from backends.testing.rig import until

RATE = int(os.environ.get("TALLYGATE_OUTAGE_RATE", "20"))
"""Calls a second; a run of 200 takes a minute of real time."""
OUTAGE_S = 600
QUEUE_ROWS = 1000


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@virtual_clock
@pytest.mark.timeout(600)
async def test_56_long_outage_soak_ten_minutes_lose_nothing_and_need_no_more_memory(tmp_path: Path) -> None:
    database = MemoryDatabase()
    async with spooling(tmp_path, database, max_queue_rows=QUEUE_ROWS, fault=fail()) as rig:
        grown_from = 0
        for second in range(OUTAGE_S):
            for _ in range(RATE):
                await rig.put()
            await asyncio.sleep(1)
            stats = rig.writer.stats()
            assert stats.counts.unaccounted == 0 and stats.shed == {}
            assert stats.queue_rows <= 2 * QUEUE_ROWS
            rig.records.clear()  # the model's own memory
            if second == OUTAGE_S // 4:
                grown_from = resident_bytes()
        grown = resident_bytes() - grown_from
        print(f"{OUTAGE_S * RATE} rows in {OUTAGE_S} s, {rows_on_disk(tmp_path)} on the disk, RSS +{grown} B")  # noqa: T201
        assert grown < 32 * 1024 * 1024

        rig.sink.heal()
        await until(lambda: len(database.rows) == OUTAGE_S * RATE)
        counts = rig.writer.stats().counts
        assert (counts.unaccounted, counts.abandoned, counts.spooled) == (0, 0, 0)
