"""The memory sink is the specification: it passes the suite first."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import pytest

from backends.memory import MemoryOptions, MemorySink, memory_database
from backends.record import Boot, UsageRecord
from backends.testing import SinkConformance, make_batch


class TestMemory(SinkConformance):
    sink_cls = MemorySink
    sink_name = "memory"

    @pytest.fixture(autouse=True)
    def _own_database(self) -> None:
        self.database = f"test-{uuid4()}"

    def make_options(self) -> MemoryOptions:
        return MemoryOptions(database=self.database)

    async def rows_in_sink(self) -> Sequence[UsageRecord]:
        return list(memory_database(self.database).rows.values())

    async def boots_in_sink(self) -> Sequence[Boot]:
        return list(memory_database(self.database).boots.values())


async def test_without_a_name_every_memory_sink_has_rows_of_its_own() -> None:
    async with MemorySink.open(MemoryOptions()) as first, MemorySink.open(MemoryOptions()) as second:
        await first.write(make_batch(3))

        assert (len(first.database.rows), len(second.database.rows)) == (3, 0)
