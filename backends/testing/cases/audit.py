"""What ``logs audit`` asks: a gap in the numbers of a boot, a number held twice, a last row that is gone.

For a sink that declares that it cannot be audited, every case asserts that it really cannot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

from ...numbers import Run
from ...record import Batch, Boot, UsageRecord
from ...sink import LogSink, UsageAuditor
from ..naive import naive_repeated, naive_runs
from ..records import MOMENT, make_record
from .base import SinkCases, auditor_of, bounded

HOUR = timedelta(hours=1)


class AuditCases(SinkCases):
    async def test_a_new_database_has_no_boots_and_no_numbers(self) -> None:
        async with self._auditing() as (_, auditor):
            if auditor:
                assert await bounded(auditor.read_boots()) == ()
                assert await bounded(auditor.read_runs()) == ()
                assert await bounded(auditor.read_repeated(uuid7(), 10)) == ()

    async def test_boots_are_read_as_they_were_recorded(self) -> None:
        running = Boot(id=uuid7(), started_at=MOMENT)
        closed = Boot(id=uuid7(), started_at=MOMENT, closed_at=MOMENT + HOUR, last_seq=2**53 + 1)
        gave_up = replace(closed, id=uuid7(), last_seq=12, abandoned="5-9,12")

        async with self._auditing(boots=(running, closed, gave_up)) as (_, auditor):
            if auditor:
                found = await bounded(auditor.read_boots())
                assert sorted(map(self._plain, found)) == sorted(map(self._plain, (running, closed, gave_up)))

    async def test_what_was_abandoned_is_not_forgotten_when_a_start_arrives_late(self) -> None:
        started = Boot(id=uuid7(), started_at=MOMENT)
        closed = replace(started, closed_at=MOMENT + HOUR, last_seq=3, abandoned="3")

        async with self.open() as sink:
            for boot in (closed, started):
                await bounded(sink.record_boot(boot))

        assert [(boot.last_seq, boot.abandoned) for boot in await self.boots_in_sink()] == [(3, "3")]

    async def test_a_boot_that_misses_no_number_is_one_run(self) -> None:
        rows = make_numbered(uuid7(), range(1, 201))

        async with self._auditing(*reversed(rows)) as (_, auditor):
            if auditor:
                assert await bounded(auditor.read_runs()) == naive_runs(rows)
                assert len(naive_runs(rows)) == 1

    async def test_every_gap_ends_a_run(self) -> None:
        rows = make_numbered(uuid7(), (2, 3, 5, 8, 9, 10, 2**53 + 1))

        async with self._auditing(*rows) as (_, auditor):
            if auditor:
                found = await bounded(auditor.read_runs())
                spans = [(run.first, run.last, run.rows) for run in found]
                assert spans == [(2, 3, 2), (5, 5, 1), (8, 10, 3), (2**53 + 1, 2**53 + 1, 1)]

    async def test_the_numbers_of_boots_are_kept_apart(self) -> None:
        first, second = uuid7(), uuid7()
        rows = (*make_numbered(first, (1, 2, 4)), *make_numbered(second, (1, 3)))

        async with self._auditing(*rows) as (_, auditor):
            if auditor:
                assert _spans(await bounded(auditor.read_runs())) == _spans(naive_runs(rows))

    async def test_a_run_knows_when_its_newest_call_began(self) -> None:
        boot_id = uuid7()
        times = {1: MOMENT + HOUR, 2: MOMENT + 3 * HOUR, 3: MOMENT, 5: MOMENT + 2 * HOUR}
        rows = [make_record(boot_id=boot_id, seq=seq, timestamp=moment) for seq, moment in times.items()]

        async with self._auditing(*rows) as (_, auditor):
            if auditor:
                found = await bounded(auditor.read_runs())
                assert [run.newest for run in found] == [MOMENT + 3 * HOUR, MOMENT + 2 * HOUR]

    async def test_rows_that_no_writer_numbered_have_no_run(self) -> None:
        rows = [make_record(), make_record(boot_id=uuid7(), seq=0), make_record(seq=7)]

        async with self._auditing(*rows) as (_, auditor):
            if auditor:
                assert await bounded(auditor.read_runs()) == ()

    async def test_a_number_that_two_rows_have_is_told_with_their_ids(self) -> None:
        boot_id, other = uuid7(), uuid7()
        rows = make_numbered(boot_id, (1, 2, 2, 3, 5, 5, 5))
        others = make_numbered(other, (2, 5))

        async with self._auditing(*rows, *others) as (_, auditor):
            if auditor:
                runs = await bounded(auditor.read_runs())
                assert [run.has_repeated for run in runs if run.boot_id == boot_id] == [True, True]
                assert [run.has_repeated for run in runs if run.boot_id == other] == [False, False]
                found = await bounded(auditor.read_repeated(boot_id, 100))
                assert found == naive_repeated(rows)
                assert await bounded(auditor.read_repeated(boot_id, 3)) == found[:3]
                assert await bounded(auditor.read_repeated(other, 100)) == ()

    async def test_a_row_that_is_sent_again_repeats_no_number(self) -> None:
        rows = make_numbered(uuid7(), range(1, 6))

        async with self._auditing(*rows) as (sink, auditor):
            if auditor:
                await bounded(sink.write(Batch.of(rows)))
                await bounded(sink.write(Batch.of(rows[2:])))
                assert await bounded(auditor.read_runs()) == naive_runs(rows)
                assert await bounded(auditor.read_repeated(_boot_of(rows), 10)) == ()

    @asynccontextmanager
    async def _auditing(
        self, *rows: UsageRecord, boots: Iterable[Boot] = ()
    ) -> AsyncIterator[tuple[LogSink, UsageAuditor | None]]:
        """The sink, with ``rows`` and ``boots`` in it, and what it can be asked."""
        async with self.open() as sink:
            if rows:
                await bounded(sink.write(Batch.of(rows)))
            for boot in boots:
                await bounded(sink.record_boot(boot))
            yield sink, auditor_of(sink)

    @staticmethod
    def _plain(boot: Boot) -> tuple[object, ...]:
        """As text, to the millisecond that every sink keeps of a boot's times."""
        times = (boot.started_at, boot.closed_at)
        return (
            str(boot.id),
            *(f"{each:%F %T}" if each else "" for each in times),
            boot.last_seq,
            boot.abandoned,
        )


def make_numbered(boot_id: UUID, numbers: Iterable[int]) -> tuple[UsageRecord, ...]:
    """A row for each of ``numbers`` of a boot."""
    return tuple(make_record(boot_id=boot_id, seq=seq) for seq in numbers)


def _spans(runs: Iterable[Run]) -> list[tuple[UUID, int, int]]:
    return [(run.boot_id, run.first, run.last) for run in runs]


def _boot_of(rows: Iterable[UsageRecord]) -> UUID:
    boot_id = next(iter(rows)).boot_id
    assert boot_id
    return boot_id
