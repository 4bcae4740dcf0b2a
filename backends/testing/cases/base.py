"""What an author tells the suite about a sink, and what every case uses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from msgspec import structs

from ...batching import BatchingOptions
from ...errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable, SinkRowsRejected
from ...record import Boot, UsageRecord
from ...sink import Capabilities, LogSink, SinkOptions, UsageAuditor, UsageReader
from ...usage_query import UsageQuery
from ..records import make_record

T = TypeVar("T")

PATIENCE_S = 30.0
"""Real seconds after which a call of the sink is called stuck."""

fuzzed = settings(
    max_examples=15,
    deadline=None,
    database=None,
    # The suite is one function for all sinks, and its fixtures are the author's.
    suppress_health_check=[
        HealthCheck.differing_executors,
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)

TYPED_ERRORS = (SinkRetryable, SinkRowsRejected, SinkBatchRejected, SinkFatal)


class SinkCases:
    """The hooks. ``sink_cls``, ``make_options``, ``rows_in_sink`` and ``boots_in_sink`` have to be given,
    the others may be."""

    sink_cls: ClassVar[type[LogSink]]
    """The sink under test."""

    sink_name: ClassVar[str | None] = None
    """The name under which the configuration finds it, once it is installed or registered."""

    fault_modes: ClassVar[frozenset[str]] = frozenset()
    """The modes that ``fault`` offers: ``down`` (no write succeeds, nothing is stored)."""

    def make_options(self) -> SinkOptions:
        """Options for one database that belongs to this test and was empty at its start. Called several
        times in a test, and every time for the same database."""
        raise NotImplementedError

    async def rows_in_sink(self) -> Sequence[UsageRecord]:
        """Every stored row, read straight through the driver, around the sink, in any order."""
        raise NotImplementedError

    async def boots_in_sink(self) -> Sequence[Boot]:
        """Every stored boot, read around the sink likewise."""
        raise NotImplementedError

    def fault(self, mode: str) -> AbstractAsyncContextManager[None]:
        """Within the context the database suffers from ``mode``; afterwards it is well again."""
        raise NotImplementedError

    def poison(self) -> UsageRecord:
        """A row that the sink refuses for good, whatever its neighbours are."""
        return make_record(prompt_tokens=2**63)

    # --- for the cases

    @property
    def capabilities(self) -> Capabilities:
        return self.sink_cls.capabilities

    @property
    def batching(self) -> BatchingOptions:
        """The core's limits as they stand for this sink when nobody configures any."""
        return BatchingOptions.model_validate(dict(self.sink_cls.batching_defaults))

    def open(self) -> AbstractAsyncContextManager[LogSink]:
        """The sink on this test's database."""
        return self.sink_cls.open(self.make_options())

    def need_fault(self, mode: str) -> None:
        """Go on only if the author offers ``mode``; else the report lists the case as not offered."""
        if mode not in self.fault_modes:
            pytest.skip(f"not offered: {type(self).__name__} has no fault {mode!r}")

    async def check_stored(self, *expected: Iterable[UsageRecord]) -> None:
        """The database holds these rows, every field as it was, each once, and no others."""
        wanted = {row.id: row for rows in expected for row in rows}
        found = await self.rows_in_sink()
        if self.capabilities.dedup == "immediate":
            assert len(found) == len({row.id for row in found}), "a row is stored twice"
        assert {row.id for row in found} == set(wanted)
        for row in found:
            self.check_equal(row, wanted[row.id])

    def check_equal(self, found: UsageRecord, wanted: UsageRecord) -> None:
        """Every field as it was, to the precision that the sink declares."""
        assert self._comparable(found) == self._comparable(wanted)

    def _comparable(self, row: UsageRecord) -> dict[str, Any]:
        fields = structs.asdict(row)
        if not self.capabilities.microsecond_time:
            fields["timestamp"] = row.timestamp.replace(microsecond=row.timestamp.microsecond // 1000 * 1000)
        if not self.capabilities.exact_decimal and row.cost is not None:
            fields["cost"] = pytest.approx(float(row.cost))
        return fields


def reader_of(sink: LogSink) -> UsageReader | None:
    """The read side, or None where the sink declares that it has none, and then really has none."""
    if sink.capabilities.reads_usage:
        assert isinstance(sink, UsageReader), "reads_usage is declared, read_usage is missing"
        return sink
    assert not isinstance(sink, UsageReader), "read_usage is there, reads_usage is not declared"
    return None


def auditor_of(sink: LogSink) -> UsageAuditor | None:
    """What ``logs audit`` asks, or None where the sink declares that it cannot be, and then really cannot."""
    if sink.capabilities.audits_usage:
        assert isinstance(sink, UsageAuditor), "audits_usage is declared, read_boots or read_runs is missing"
        return sink
    assert not isinstance(sink, UsageAuditor), "read_runs is there, audits_usage is not declared"
    return None


async def read_all(reader: UsageReader, page_rows: int = 100, **query: Any) -> list[UsageRecord]:
    """The rows of every page, in their order."""
    rows: list[UsageRecord] = []
    after = None
    while True:
        page = await bounded(reader.read_usage(UsageQuery(**query, after=after, limit=page_rows)))
        assert len(page.rows) <= page_rows
        rows += page.rows
        after = page.cursor
        if after is None:
            return rows
        assert page.rows, "an empty page leads to another one"


async def bounded(call: Awaitable[T]) -> T:
    """What ``call`` gives; fails instead of hanging."""
    task = asyncio.ensure_future(call)
    await settled(task)
    return task.result()


async def settled(task: asyncio.Future[Any]) -> None:
    """Wait until ``task`` is done, however it ends."""
    done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
    assert done, f"the sink did not answer within {PATIENCE_S:.0f} s"


async def outcome_of(call: Awaitable[T]) -> T | SinkError:
    """What ``call`` returns, or the typed error that it raises; any other error fails the case."""
    try:
        return await bounded(call)
    except SinkError as error:
        assert isinstance(error, TYPED_ERRORS), f"{type(error).__name__} is none of the four classes"
        return error
