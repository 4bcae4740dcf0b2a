"""A sink that fails to order: wraps any sink, and what goes through it meets the faults of a script.

Takes faults, one per write, or one that lasts until ``heal``; gives the real sink's answers otherwise, and
records every write. Faults are injected by wrapping: the sink underneath is always a real one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, Self, TypeAlias
from uuid import UUID

from ..errors import Rejection, SinkBatchRejected, SinkFatal, SinkRetryable, SinkRowsRejected
from ..memory import MemoryDatabase, MemoryOptions, MemorySink
from ..numbers import NumberedRow, Run
from ..record import Batch, Boot, UsageRecord
from ..sink import Capabilities, Committed, LogSink, SinkOptions, UsageAuditor, UsageReader
from ..usage_query import SummaryQuery, SummaryRow, UsagePage, UsageQuery

Deliver: TypeAlias = Callable[[], Awaitable[Committed]]
"""Hands the batch to the real sink."""
Fault: TypeAlias = Callable[[Deliver], Awaitable[Committed]]
"""What happens to one write: it may deliver, before or after whatever it does, or not."""


@dataclass(slots=True)
class Write:
    """One call of ``write``. ``outcome`` is what it returned or raised; None while it is under way."""

    batch_id: UUID
    row_ids: tuple[UUID, ...]
    outcome: Committed | BaseException | None = None


@dataclass(slots=True)
class _Poison:
    is_bad: Callable[[UsageRecord], bool]
    names_rows: bool
    code: str


class FaultySink:
    """``inner`` behind a script. ``always`` is the fault that every write, ping, migration and boot meets
    once the script is empty; None: no fault. ``open`` gives one around a memory sink."""

    Options: ClassVar[type[SinkOptions]] = MemoryOptions
    capabilities: ClassVar[Capabilities] = Capabilities()
    batching_defaults: ClassVar[Mapping[str, Any]] = {}

    read_usage: Callable[[UsageQuery], Awaitable[UsagePage]]
    summarise_usage: Callable[[SummaryQuery], Awaitable[tuple[SummaryRow, ...]]]
    read_boots: Callable[[], Awaitable[tuple[Boot, ...]]]
    read_runs: Callable[[], Awaitable[tuple[Run, ...]]]
    read_repeated: Callable[[UUID, int], Awaitable[tuple[NumberedRow, ...]]]
    """All of these are there only if ``inner`` has them."""

    def __init__(self, inner: LogSink | None = None) -> None:
        self.inner = inner or MemorySink(MemoryDatabase())
        self.always: Fault | None = None
        self.writes: list[Write] = []
        self.pings = 0
        self.aborts = 0
        self.aborted = asyncio.Event()
        self._script: deque[Fault] = deque()
        self._poison: list[_Poison] = []
        # The Protocol has these on the class; here each object speaks for the sink that it wraps.
        vars(self).update(
            capabilities=self.inner.capabilities, batching_defaults=self.inner.batching_defaults
        )
        if isinstance(self.inner, UsageAuditor):
            self.read_boots = self.inner.read_boots
            self.read_runs = self.inner.read_runs
            self.read_repeated = self.inner.read_repeated
        if isinstance(self.inner, UsageReader):
            self.read_usage = self.inner.read_usage
            self.summarise_usage = self.inner.summarise_usage

    @classmethod
    @asynccontextmanager
    async def open(cls, options: MemoryOptions) -> AsyncIterator[Self]:
        async with MemorySink.open(options) as inner:
            yield cls(inner)

    # --- the script

    def script(self, *faults: Fault, times: int = 1) -> None:
        """The next writes meet ``faults``, one each, in this order; all of them ``times`` over."""
        self._script.extend(faults * times)

    def poison(
        self, is_bad: Callable[[UsageRecord], bool], *, names_rows: bool = False, code: str = "poison"
    ) -> None:
        """From now on a write with a row that ``is_bad`` is refused for good, with the indexes of those
        rows if ``names_rows``, and nothing of it is stored."""
        self._poison.append(_Poison(is_bad, names_rows, code))

    def heal(self) -> None:
        """No more faults, no more poison."""
        self.always = None
        self._script.clear()
        self._poison.clear()

    # --- looking

    @property
    def in_progress(self) -> int:
        """Writes under way."""
        return sum(write.outcome is None for write in self.writes)

    def batch_ids(self) -> list[UUID]:
        """The batch id of every write so far, retries included, in the order of their beginnings."""
        return [write.batch_id for write in self.writes]

    def committed_ids(self) -> set[UUID]:
        """The ids of all rows in writes that returned."""
        done = (write for write in self.writes if isinstance(write.outcome, Committed))
        return {row_id for write in done for row_id in write.row_ids}

    # --- the sink

    async def write(self, batch: Batch) -> Committed:
        write = Write(batch.id, tuple(row.id for row in batch.rows))
        self.writes.append(write)
        fault = self._script.popleft() if self._script else self.always
        try:
            write.outcome = await self._meet(fault, lambda: self._deliver(batch))
        except BaseException as error:
            write.outcome = error
            raise
        return write.outcome

    async def ping(self) -> None:
        self.pings += 1
        await self._meet(self.always, lambda: _without_rows(self.inner.ping()))

    def abort(self) -> None:
        """Counted; ends every ``hang`` that heeds it, and aborts the sink underneath."""
        self.aborts += 1
        self.aborted.set()
        self.inner.abort()

    async def migrate(self) -> None:
        await self._meet(self.always, lambda: _without_rows(self.inner.migrate()))

    async def record_boot(self, boot: Boot) -> None:
        await self._meet(self.always, lambda: _without_rows(self.inner.record_boot(boot)))

    async def _meet(self, fault: Fault | None, deliver: Deliver) -> Committed:
        return await (fault(deliver) if fault else deliver())

    async def _deliver(self, batch: Batch) -> Committed:
        for poison in self._poison:
            bad = [index for index, row in enumerate(batch.rows) if poison.is_bad(row)]
            if bad and poison.names_rows:
                raise SinkRowsRejected(dict.fromkeys(bad, Rejection(poison.code)))
            if bad:
                raise SinkBatchRejected(poison.code)
        return await self.inner.write(batch)

    def hang(self, *, after_commit: bool = False, heeds_cancel: bool = False) -> Fault:
        """A fault: no answer until ``abort``, then ``SinkRetryable``. By default deaf to cancellation, as a
        driver that waits for a frozen server; ``after_commit``: the rows are stored first."""

        async def fault(deliver: Deliver) -> Committed:
            if after_commit:
                await deliver()
            while not self.aborted.is_set():
                try:
                    await self.aborted.wait()
                except asyncio.CancelledError:
                    if heeds_cancel:
                        raise
            raise SinkRetryable("aborted", ambiguous=True)

        return fault


@dataclass(eq=False, slots=True)
class Gate:
    """A fault: the write stops here until ``opened`` is set. ``entered`` tells that it arrived.

    ``after_commit``: the rows are stored before the stop, and only the answer is late.
    """

    after_commit: bool = False
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, deliver: Deliver) -> Committed:
        answer = await deliver() if self.after_commit else None
        self.entered.set()
        await self.opened.wait()
        return answer or await deliver()


async def _without_rows(call: Awaitable[None]) -> Committed:
    await call
    return Committed(0)


def fail(code: str = "unavailable", *, ambiguous: bool = False, slow_down: bool = False) -> Fault:
    """A fault: ``SinkRetryable``, nothing stored."""
    return raising(lambda: SinkRetryable(code, ambiguous=ambiguous, slow_down=slow_down))


def fatal(code: str = "denied") -> Fault:
    """A fault: ``SinkFatal``, nothing stored."""
    return raising(lambda: SinkFatal(code))


def refuse(code: str = "refused") -> Fault:
    """A fault: ``SinkBatchRejected``, nothing stored."""
    return raising(lambda: SinkBatchRejected(code))


def raising(make_error: Callable[[], BaseException]) -> Fault:
    """A fault: whatever ``make_error`` makes is raised, also what no sink may raise; nothing stored."""

    async def fault(deliver: Deliver) -> Committed:
        raise make_error()

    return fault


def lose_ack(code: str = "connection_lost") -> Fault:
    """A fault: the rows are stored, and ``SinkRetryable`` says that this is unknown."""

    async def fault(deliver: Deliver) -> Committed:
        await deliver()
        raise SinkRetryable(code, ambiguous=True)

    return fault


def slow(seconds: float) -> Fault:
    """A fault: the write takes ``seconds`` longer, on the loop's clock."""

    async def fault(deliver: Deliver) -> Committed:
        await asyncio.sleep(seconds)
        return await deliver()

    return fault


def at_random(rng: Random, *choices: tuple[float, Fault]) -> Fault:
    """A fault: each of ``choices`` with its probability, else none. ``rng`` is seeded by the test."""

    async def fault(deliver: Deliver) -> Committed:
        point = rng.random()
        for probability, choice in choices:
            if point < probability:
                return await choice(deliver)
            point -= probability
        return await deliver()

    return fault
