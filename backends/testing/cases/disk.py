"""The sink behind the core with a disk beside it: what it could not take then, it has once later.

Real time and real I/O; the disk's own faults are tried on a virtual clock, in the core's own tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ...sink import LogSink
from ...spool import Spool, SpoolOptions
from ..faults import FaultySink, fail, lose_ack
from ..rig import SEED, Hasty, LetterBox, Rig, build_writer, until
from .base import bounded
from .core import ThroughTheCore


class DiskCases(ThroughTheCore):
    async def test_20_commit_unknown_then_deadline(self) -> None:
        """Stored each time, and each time the answer is lost: when their time is up the rows go to the disk,
        and adding them once more from there adds nothing."""
        async with folder_of_its_own() as folder, spool_in(folder) as spool:
            async with self.through_core(spool=spool, batch_deadline_s=0.05) as rig:
                rig.sink.always = lose_ack()
                await rig.put_many(6)
                await bounded(until(lambda: rig.writer.stats().counts.spooled == 6))
                rig.sink.heal()
                await bounded(until(lambda: not rig.writer.stats().counts.spooled))
                await self.flushed(rig)

                assert len(set(rig.sink.batch_ids())) == 1
            self.check_counts(rig, committed=0, duplicates=6)

    async def test_50_rows_that_a_stop_left_on_the_disk_are_stored_once_by_the_next_run(self) -> None:
        async with folder_of_its_own() as folder:
            async with spool_in(folder) as spool, self.open() as sink:
                first = rig_over(sink, spool)
                await first.writer.start()
                first.sink.always = fail()
                given = await first.put_many(40)
                report = await bounded(first.writer.stop(0.2))
                assert report.is_clean and report.stats.counts.spooled == 40
            async with spool_in(folder) as spool, self.open() as sink:
                second = rig_over(sink, spool)
                await second.writer.start()
                await bounded(until(lambda: not second.writer.stats().counts.spooled))
                report = await bounded(second.writer.stop())
            rows = await self.rows_in_sink()
            assert report.stats.counts.recovered == 40
            assert sorted({row.id for row in rows}) == sorted(given)
            for row in rows:
                self.check_equal(row, first.expected(row))


def rig_over(sink: LogSink, spool: Spool) -> Rig:
    """A writer that is not started, with hasty jitter."""
    faulty, box = FaultySink(sink), LetterBox()
    writer = build_writer(faulty, box, rng=Hasty(SEED), spool=spool, linger_s=0)
    return Rig(writer, faulty, box)


@asynccontextmanager
async def folder_of_its_own() -> AsyncIterator[Path]:
    with TemporaryDirectory(prefix="tallygate-spool-") as folder:
        yield Path(folder)


@asynccontextmanager
async def spool_in(folder: Path) -> AsyncIterator[Spool]:
    """A spool for one run."""
    spool = Spool(SpoolOptions(path=folder, min_free_bytes=0))
    try:
        yield spool
    finally:
        await spool.close()
