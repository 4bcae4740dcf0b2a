"""What ``logs audit`` asks the embedded sink: boots, the numbers of their rows, and numbers held twice.

Takes a connection of the driver's; gives plain data. The database looks at every row once and keeps no more
than what it sorts by, on disk if need be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from .errors import SinkFatal
from .numbers import NumberedRow, Run
from .record import Boot
from .statements import statements

_SQL = statements("sqlite")


class Connection(Protocol):
    """The part of the driver's connection that reading uses."""

    def execute(self, sql: str, values: Mapping[str, Any] = ..., /) -> Iterable[tuple[Any, ...]]: ...


def read_boots(connection: Connection) -> tuple[Boot, ...]:
    """Every boot, the oldest first."""
    with _edited("usage_boots"):
        return tuple(_boot(*row) for row in connection.execute(_SQL["read_boots"]))


def read_runs(connection: Connection) -> tuple[Run, ...]:
    """The runs of every boot."""
    with _edited("usage_logs"):
        return tuple(
            Run(UUID(boot_id), first, last, rows, datetime.fromisoformat(newest))
            for boot_id, first, last, rows, newest in connection.execute(_SQL["read_runs"])
        )


def read_repeated(connection: Connection, boot_id: UUID, limit: int) -> tuple[NumberedRow, ...]:
    """The rows of ``boot_id`` that share their number with another one."""
    values = {"boot_id": str(boot_id), "limit": limit}
    with _edited("usage_logs"):
        found = connection.execute(_SQL["read_repeated"], values)
        return tuple(NumberedRow(seq, UUID(row_id)) for seq, row_id in found)


def _boot(boot_id: str, started_at: str, closed_at: str | None, last_seq: int | None, abandoned: str) -> Boot:
    return Boot(
        id=UUID(boot_id),
        started_at=datetime.fromisoformat(started_at),
        closed_at=datetime.fromisoformat(closed_at) if closed_at else None,
        last_seq=last_seq,
        abandoned=abandoned,
    )


@contextmanager
def _edited(table: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, AttributeError) as error:
        raise SinkFatal("row_unreadable", f"a row of {table} was changed by another program") from error
