"""What ``logs audit`` asks of a collection, answered here: no server has to group, to sort what has no index,
or to keep a cursor for long.

Takes a way to find documents, page by page in the order of their ids, which is about that of their numbers;
gives plain data, and needs memory for that and one page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeAlias
from uuid import UUID

from .errors import SinkFatal
from .mongo_documents import Document
from .numbers import NumberedRow, Run, RunCounter
from .record import Boot

BY_ID = (("_id", 1),)
FIELDS = ("boot_id", "seq", "timestamp_us")
PAGE_ROWS = 5000

Find: TypeAlias = Callable[[Document], Awaitable[Sequence[Mapping[str, Any]]]]
"""The first ``PAGE_ROWS`` documents that match, with their ``FIELDS``, in the order ``BY_ID``."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def boot(found: Mapping[str, Any]) -> Boot:
    """The boot that ``found`` is the document of; not every server keeps a null. Raises ``SinkFatal`` for
    any other document."""
    if not isinstance(found.get("started_at"), datetime):
        raise SinkFatal("row_unreadable", f"the boot {found['_id']} was changed by another program")
    return Boot(
        id=found["_id"],
        started_at=found["started_at"],
        closed_at=found.get("closed_at"),
        last_seq=found.get("last_seq"),
        abandoned=found.get("abandoned") or "",
    )


async def read_runs(find: Find) -> tuple[Run, ...]:
    """The runs of every boot."""
    counter = RunCounter()
    async for boot_id, seq, moment, _ in _numbered(find, {}):
        counter.add(boot_id, seq, moment)
    return counter.runs()


async def read_repeated(find: Find, boot_id: UUID, limit: int) -> tuple[NumberedRow, ...]:
    """The rows of ``boot_id`` that share their number with another one, the first ``limit``."""
    counter, twice = RunCounter(), set[int]()
    async for _, seq, moment, _ in _numbered(find, {"boot_id": boot_id}):
        if not counter.add(boot_id, seq, moment):
            twice.add(seq)
    wanted = list(islice(sorted(twice), limit))
    several = {"boot_id": boot_id, "seq": {"$in": wanted}}
    rows = (
        [NumberedRow(seq, row_id) async for _, seq, _, row_id in _numbered(find, several)] if wanted else []
    )
    return tuple(sorted(rows)[:limit])


async def _numbered(find: Find, condition: Document) -> AsyncIterator[tuple[UUID, int, datetime, UUID]]:
    """Boot, number, time and id of each row that matches and that a writer numbered."""
    found = await find(condition)
    while found:
        for each in found:
            boot_id: UUID | None = each.get("boot_id")
            if boot_id is not None and each["seq"] > 0:
                yield boot_id, each["seq"], _EPOCH + timedelta(microseconds=each["timestamp_us"]), each["_id"]
        is_last = len(found) < PAGE_ROWS
        found = [] if is_last else await find({**condition, "_id": {"$gt": found[-1]["_id"]}})
