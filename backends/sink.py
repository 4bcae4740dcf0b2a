"""The contract between the batching core and a database.

A sink takes a batch and returns when it is durable. It holds no queue, retries nothing and never stops
by itself: all of that is the core's. A sink object exists only while it is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from .numbers import NumberedRow, Run
from .record import Batch, Boot
from .usage_query import SummaryQuery, SummaryRow, UsagePage, UsageQuery


class SinkOptions(BaseModel):
    """Base of every sink's ``Options``: closed, so that a misspelt key is an error at start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a sink can do. The defaults are the strict ones; a gap is declared and tested as a gap.

    ``dedup``: whether a row sent twice is one row at once (``immediate``) or once the engine merged
    (``eventual``; its read side must hide it). ``atomic_batch``: a batch is stored whole or not at all.
    ``exact_decimal``: ``cost`` comes back digit for digit. ``microsecond_time``: ``timestamp`` too.
    ``reads_usage``: the sink is a ``UsageReader``. ``audits_usage``: it is a ``UsageAuditor``.
    """

    dedup: Literal["immediate", "eventual"] = "immediate"
    atomic_batch: bool = True
    exact_decimal: bool = True
    microsecond_time: bool = True
    reads_usage: bool = True
    audits_usage: bool = True


@dataclass(frozen=True, slots=True)
class Committed:
    """A durable batch: ``new`` rows were stored by this write, ``duplicates`` were there already."""

    new: int
    duplicates: int = 0


class LogSink(Protocol):
    """A database that stores usage rows.

    ``batching_defaults`` overrides defaults of ``BatchingOptions`` by name (for example
    ``{"flush_concurrency": 1}``).
    """

    Options: ClassVar[type[SinkOptions]]
    capabilities: ClassVar[Capabilities]
    batching_defaults: ClassVar[Mapping[str, Any]]

    @classmethod
    def open(cls, options: Any) -> AbstractAsyncContextManager[Self]:
        """The sink, open. ``options`` is an instance of ``Options``. No network I/O: the gateway starts
        with the database down."""
        ...

    async def write(self, batch: Batch) -> Committed:
        """Store ``batch``; returning means durable. The same batch again changes nothing.

        Raises ``SinkRetryable``, ``SinkRowsRejected``, ``SinkBatchRejected`` or ``SinkFatal``, nothing
        else. May be cancelled at any await: the sink stays usable, and whether the rows were stored is
        then unknown. Neither changes nor keeps the batch. May run several times at once, up to
        ``flush_concurrency``.
        """
        ...

    async def ping(self) -> None:
        """Return if a write would be likely to succeed; raises as ``write`` does. May be cancelled."""
        ...

    def abort(self) -> None:
        """End every call under way, at once and without waiting. Used only when stopping: no ``write``
        follows. May be called again."""
        ...

    async def migrate(self) -> None:
        """Create the schema or bring it up to this program's; returning means it is there and fits.

        May be repeated, also by several processes at once; changes no row. Raises as ``write`` does:
        ``SinkFatal`` for a schema of a newer program and for tables that are not ours. A sink whose
        ``Options`` have ``migrate`` (default true) does this by itself when it is first used; told not to,
        every other call on a database without the schema raises ``SinkFatal`` with the code
        ``schema_missing`` and a message that names ``tallygate migrate``. May be cancelled.
        """
        ...

    async def record_boot(self, boot: Boot) -> None:
        """Store or update ``boot`` in ``usage_boots``, by its id. Idempotent; a close, and what was
        abandoned, is never undone by a start that arrives late. Raises as ``write`` does."""
        ...


@runtime_checkable
class UsageReader(Protocol):
    """The read side of a sink that declares ``reads_usage``."""

    async def read_usage(self, query: UsageQuery) -> UsagePage:
        """Rows that match ``query``, newest first by (timestamp, id). Raises as ``write`` does.
        May be repeated and cancelled."""
        ...

    async def summarise_usage(self, query: SummaryQuery) -> tuple[SummaryRow, ...]:
        """The groups of the rows that match ``query``, in the order of ``summary.sort_key``. Raises as
        ``write`` does. May be repeated and cancelled."""
        ...


@runtime_checkable
class UsageAuditor(Protocol):
    """What ``logs audit`` asks a sink that declares ``audits_usage``. Rows that no writer numbered (without
    a boot, or with a number below 1) are left out. Everything raises as ``write`` does, and may be repeated
    and cancelled. May take as long as it takes to look at every row once; needs memory for what it gives.

    Where the ``Options`` have ``retention_days``, rows older than that may be missing without an accusation.
    """

    async def read_boots(self) -> tuple[Boot, ...]:
        """Every boot as it was recorded."""
        ...

    async def read_runs(self) -> tuple[Run, ...]:
        """The numbers that are stored: one run per boot without a gap; by boot, in ascending order."""
        ...

    async def read_repeated(self, boot_id: UUID, limit: int) -> tuple[NumberedRow, ...]:
        """The rows of that boot that share their number with another one, by number and id, the first
        ``limit`` of them."""
        ...


@runtime_checkable
class PooledSink(Protocol):
    """A sink whose connections can be counted, for the metrics. None has to be one."""

    def pool(self) -> Mapping[str, int]:
        """Connections of this process by state: ``in_use``, and ``idle`` where that is known. Asks nobody."""
        ...
