"""The suite against sinks with one known bug each: every bug is caught by a case that can be named."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec import structs
from uuid_utils.compat import uuid7

from backends.errors import SinkError
from backends.memory import MemoryOptions, MemorySink, memory_database
from backends.numbers import NumberedRow, Run, repeated_of, runs_of
from backends.record import Batch, Boot, UsageRecord
from backends.sink import Capabilities, Committed
from backends.testing import SinkConformance
from backends.usage_query import SummaryQuery, SummaryRow, UsagePage, UsageQuery


class AcknowledgesBeforeItStores(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        self.later = asyncio.create_task(super().write(batch))
        return Committed(len(batch.rows))


class DuplicatesOnRetry(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        answer = await super().write(batch)
        for row in batch.rows if answer.duplicates else ():
            self.database.rows[uuid7()] = row
        return answer


class LosesOnCancel(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        given_up = vars(self).setdefault("given_up", set())
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            given_up.add(batch.id)
            raise
        return Committed(len(batch.rows)) if batch.id in given_up else await super().write(batch)


class StoresHalfOnCancel(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await super().write(Batch.of(batch.rows[:1]))
            raise
        return await super().write(batch)


class KeepsTheBatch(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        vars(self).setdefault("kept", []).append(batch)
        return await super().write(batch)


class KeepsTheList(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        self.last = batch.rows
        return await super().write(batch)


class MiscountsDuplicates(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        await super().write(batch)
        return Committed(len(batch.rows))


class ForgetsWhenClosed(MemorySink):
    def __init__(self, database: Any) -> None:
        super().__init__(database)
        database.rows.clear()


class StoresTheGoodRowsSilently(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        try:
            return await super().write(batch)
        except SinkError:
            for row in batch.rows:
                if (row.prompt_tokens or 0) < 2**63:
                    self.database.rows[row.id] = row
            raise


class LeaksTheDriversError(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        for row in batch.rows:
            (row.user_id or "").encode()
        return await super().write(batch)


class RoundsTheCost(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        rows = tuple(structs.replace(row, cost=row.cost and round(row.cost, 6)) for row in batch.rows)
        return await super().write(Batch(batch.id, rows))


class ReopensAClosedBoot(MemorySink):
    async def record_boot(self, boot: Boot) -> None:
        self.database.boots[boot.id] = boot


class SkipsAtTheEdgeOfAPage(MemorySink):
    async def read_usage(self, query: UsageQuery) -> UsagePage:
        page = await super().read_usage(query)
        return replace(page, rows=page.rows[1:] if query.after else page.rows)


class IgnoresTheEnd(MemorySink):
    async def read_usage(self, query: UsageQuery) -> UsagePage:
        return await super().read_usage(replace(query, end=None))


class CutsTheBatch(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        await super().write(Batch(batch.id, batch.rows[:100]))
        return Committed(len(batch.rows))


class SwallowsTheRefusal(MemorySink):
    async def write(self, batch: Batch) -> Committed:
        try:
            return await super().write(batch)
        except SinkError:
            return Committed(len(batch.rows))


class ForgetsTheClose(MemorySink):
    async def record_boot(self, boot: Boot) -> None:
        self.database.boots.setdefault(boot.id, boot)


class CountsWhatARetryHid(MemorySink):
    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        for row in self.database.rows.values():
            self.database.rows[row.id] = structs.replace(row, status=row.status.replace("absorbed", "error"))
        return await super().summarise_usage(query)


class AddsUpInFloats(MemorySink):
    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        rows = await super().summarise_usage(query)
        return tuple(replace(row, cost=Decimal(float(row.cost) * (1 + 1e-16 * row.calls))) for row in rows)


class IsOffByOneRank(MemorySink):
    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        rows = await super().summarise_usage(query)
        return tuple(replace(row, latency_p95_ms=row.latency_p50_ms) for row in rows)


class SummarisesEverything(MemorySink):
    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        return await super().summarise_usage(replace(query, filters=()))


class TakesUnknownForEmpty(MemorySink):
    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        for row in self.database.rows.values():
            self.database.rows[row.id] = structs.replace(row, user_id=row.user_id or "")
        return await super().summarise_usage(query)


class LosesRowsWhenItMigrates(MemorySink):
    async def migrate(self) -> None:
        self.database.rows.clear()


class HidesItsReadSide(MemorySink):
    capabilities = Capabilities(reads_usage=False)


class DeclaresAGapItLacks(MemorySink):
    capabilities = Capabilities(exact_decimal=False)


class HidesItsAuditSide(MemorySink):
    capabilities = Capabilities(audits_usage=False)


class ClosesTheGaps(MemorySink):
    async def read_runs(self) -> tuple[Run, ...]:
        runs = await super().read_runs()
        joined = {run.boot_id: replace(run, first=first_of(runs, run)) for run in runs}
        return tuple(joined.values())


class MixesUpTheBoots(MemorySink):
    async def read_repeated(self, boot_id: UUID, limit: int) -> tuple[NumberedRow, ...]:
        rows = self.database.rows.values()
        return repeated_of([structs.replace(row, boot_id=boot_id) for row in rows], boot_id, limit)


class ForgetsWhatWasAbandoned(MemorySink):
    async def record_boot(self, boot: Boot) -> None:
        await super().record_boot(replace(boot, abandoned=""))


class CountsUnnumberedRows(MemorySink):
    async def read_runs(self) -> tuple[Run, ...]:
        rows = [structs.replace(row, seq=max(1, row.seq)) for row in self.database.rows.values()]
        return runs_of(rows)


class TakesAnyOption(MemorySink):
    class Options(MemoryOptions):
        model_config = {"extra": "ignore"}


class DeclaresAKnobThatIsNone(MemorySink):
    batching_defaults = {"flush_width": 2}


def first_of(runs: Sequence[Run], run: Run) -> int:
    return min(each.first for each in runs if each.boot_id == run.boot_id)


PLANTED = [
    (AcknowledgesBeforeItStores, "test_a_write_that_returned_is_in_the_database"),
    (DuplicatesOnRetry, "test_the_same_batch_twice_is_stored_once"),
    (DuplicatesOnRetry, "test_an_acknowledgement_that_is_lost_duplicates_nothing"),
    (LosesOnCancel, "test_cancel_at_every_step_flush"),
    (LosesOnCancel, "test_10_cancel_at_every_step_flush"),
    (StoresHalfOnCancel, "test_a_cancelled_write_is_stored_whole_or_not_at_all"),
    (DuplicatesOnRetry, "test_19_ack_lost_after_commit"),
    (DuplicatesOnRetry, "test_31_duplicate_id_submitted_twice"),
    (KeepsTheBatch, "test_the_batch_is_neither_changed_nor_kept"),
    (KeepsTheList, "test_the_batch_is_neither_changed_nor_kept"),
    (MiscountsDuplicates, "test_an_overlapping_batch_adds_what_is_new"),
    (ForgetsWhenClosed, "test_rows_outlive_the_sink"),
    (StoresTheGoodRowsSilently, "test_a_poisoned_row_is_refused_for_good"),
    (LeaksTheDriversError, "test_text_that_nobody_sanitised_raises_no_error_of_the_driver"),
    (RoundsTheCost, "test_cost_keeps_its_digits_as_declared"),
    (ReopensAClosedBoot, "test_a_start_that_arrives_late_undoes_no_close"),
    (SkipsAtTheEdgeOfAPage, "test_every_row_is_on_one_page_whatever_the_size_of_a_page"),
    (IgnoresTheEnd, "test_start_is_within_and_end_is_not"),
    (CutsTheBatch, "test_01_queued_rows_flushed_on_stop"),
    (SwallowsTheRefusal, "test_25_poison_single_row"),
    (SwallowsTheRefusal, "test_26_all_poison"),
    (StoresTheGoodRowsSilently, "test_accounting_when_rows_are_refused_at_random"),
    (ForgetsTheClose, "test_the_boot_of_a_run_has_its_last_number_in_the_sink"),
    (CountsWhatARetryHid, "test_an_absorbed_row_costs_and_is_no_call"),
    (AddsUpInFloats, "test_costs_add_up_without_a_trace_of_rounding"),
    (IsOffByOneRank, "test_latencies_are_by_nearest_rank"),
    (IsOffByOneRank, "test_every_grouping_adds_up_as_by_hand"),
    (SummarisesEverything, "test_every_filter_and_time_narrows_as_by_hand"),
    (TakesUnknownForEmpty, "test_unknown_and_empty_are_two_groups_and_unknown_comes_first"),
    (LosesRowsWhenItMigrates, "test_migrating_again_changes_no_row"),
    (HidesItsReadSide, "test_the_read_side_is_as_declared"),
    (DeclaresAGapItLacks, "test_cost_keeps_its_digits_as_declared"),
    (HidesItsAuditSide, "test_the_audit_side_is_as_declared"),
    (ClosesTheGaps, "test_every_gap_ends_a_run"),
    (MixesUpTheBoots, "test_a_number_that_two_rows_have_is_told_with_their_ids"),
    (ForgetsWhatWasAbandoned, "test_boots_are_read_as_they_were_recorded"),
    (CountsUnnumberedRows, "test_rows_that_no_writer_numbered_have_no_run"),
    (TakesAnyOption, "test_options_refuse_an_unknown_key"),
    (DeclaresAKnobThatIsNone, "test_declares_options_capabilities_and_batching_defaults"),
]


@pytest.mark.parametrize(("sink_cls", "case"), PLANTED)
async def test_a_planted_bug_is_caught_by_its_case(sink_cls: type[MemorySink], case: str) -> None:
    suite = _suite(sink_cls)

    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        await getattr(suite, case)()

    assert not isinstance(caught.value, (NotImplementedError, AttributeError, pytest.skip.Exception))


@pytest.mark.parametrize("case", sorted({case for _, case in PLANTED}))
async def test_a_sink_without_the_bug_passes_that_case(case: str) -> None:
    await getattr(_suite(MemorySink), case)()


def _suite(tested: type[MemorySink]) -> SinkConformance:
    database = f"planted-{uuid4()}"

    class Suite(SinkConformance):
        sink_cls = tested

        def make_options(self) -> MemoryOptions:
            options = tested.Options.model_validate({"database": database})
            assert isinstance(options, MemoryOptions)
            return options

        def open(self) -> AbstractAsyncContextManager[Any]:
            return tested.open(self.make_options())

        async def rows_in_sink(self) -> Sequence[UsageRecord]:
            return list(memory_database(database).rows.values())

        async def boots_in_sink(self) -> Sequence[Boot]:
            return list(memory_database(database).boots.values())

    return Suite()
