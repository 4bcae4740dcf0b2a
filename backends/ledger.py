"""Custody as pure state: which rows there are and who has each one. No I/O, no clock, no await.

Takes rows, gives batches, and keeps every row of a batch until that batch is settled. A row changes
bucket only inside one of these methods, so that at every instant

    accepted = committed + duplicates + dead_lettered + spooled + abandoned + queued + in_flight
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, islice
from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from .record import Batch, UsageRecord, row_bytes, stamped
from .reports import LedgerCounts
from .room import Room

Bucket: TypeAlias = Literal["committed", "duplicates", "dead_lettered", "spooled", "abandoned"]
Home: TypeAlias = Literal["spooled", "dead_lettered"]
"""A bucket whose rows are on the disk: they can be sent from there, and stay there until they are settled."""


class Entry(Struct, frozen=True, gc=False):
    """A row in custody, its size in bytes and when it was accepted (loop time, seconds)."""

    row: UsageRecord
    size: int
    accepted_at: float


def _ignore(bucket: Bucket, entries: Sequence[Entry]) -> None:
    """The listener of a ledger that nobody listens to."""


class Ledger:
    """All rows of one writer; ``room`` has what counts against its bounds.

    ``on_settled(bucket, entries)`` is called, synchronously, whenever rows reach their last bucket.
    """

    def __init__(
        self,
        boot_id: UUID,
        room: Room,
        on_settled: Callable[[Bucket, Sequence[Entry]], None] = _ignore,
    ) -> None:
        self.boot_id = boot_id
        self.room = room
        self.last_seq = 0
        self.queue_bytes = 0
        self._on_settled = on_settled
        self._queue: deque[Entry] = deque()
        self._flights: dict[UUID, tuple[Entry, ...]] = {}
        self._homes: dict[UUID, Home] = {}
        self._settled: Counter[Bucket] = Counter()
        self._accepted = 0
        self._recovered = 0
        self._in_flight = 0

    # --- custody

    def accept(self, row: UsageRecord, row_id: UUID, size: int, now: float) -> UsageRecord:
        """Take the row for a place, ``size`` bytes of it, into the queue; gives it back with its number in
        this boot."""
        self._accepted += 1
        self.last_seq += 1
        row = stamped(row, row_id, self.boot_id, self.last_seq)
        self._queue.append(Entry(row, size, now))
        self.queue_bytes += size
        self.room.fill(size)
        return row

    def claim(self, max_rows: int, max_bytes: int) -> Batch | None:
        """Move the oldest rows from the queue into a new batch in flight; None if the queue is empty."""
        if not self._queue:
            return None
        if len(self._queue) <= max_rows and self.queue_bytes <= max_bytes:
            return self._launch(self._dequeue(len(self._queue)))
        return self._launch(self._dequeue(self._count_fitting(max_rows, max_bytes)))

    def _count_fitting(self, max_rows: int, max_bytes: int) -> int:
        """How many of the oldest queued rows make a batch: the first always, even alone too large."""
        sizes = accumulate(entry.size for entry in islice(self._queue, max_rows))
        return max(1, sum(size <= max_bytes for size in sizes))

    def _dequeue(self, count: int) -> tuple[Entry, ...]:
        take = self._queue.popleft
        entries = tuple([take() for _ in range(count)])
        self.queue_bytes -= self._uncount(entries)
        return entries

    def divide(self, batch: Batch, groups: Iterable[Sequence[int]]) -> list[Batch]:
        """Replace a batch in flight by one new batch per group of its indexes (each index in one group)."""
        home = self.home(batch)
        entries = self._land(batch)
        parts = [self._launch(tuple(entries[index] for index in group)) for group in groups if group]
        if home is not None:
            self._homes.update((part.id, home) for part in parts)
        return parts

    # --- the disk

    def recover(self, rows: int, home: Home = "spooled") -> None:
        """``rows`` rows of earlier runs were found at ``home``: they are accepted, and stay there."""
        self._recovered += rows
        self._settled[home] += rows

    def lose(self, rows: int) -> None:
        """The disk cannot give back so many rows that only it had."""
        self._settled["spooled"] -= rows
        self._settled["abandoned"] += rows

    def number(self, batch: Batch) -> Batch:
        """``batch``, where rows that no boot accepted, for a crash came between, have numbers of this one."""
        return Batch(batch.id, tuple(self._numbered(row) for row in batch.rows))

    def fetch(self, batch: Batch, now: float, home: Home = "spooled") -> None:
        """Rows that only ``home`` held are in flight again, as ``batch``; the disk has them still."""
        self._settled[home] -= len(batch.rows)
        self._homes[batch.id] = home
        self._fly(batch, tuple(Entry(row, row_bytes(row), now) for row in batch.rows))

    def spool(self, batch: Batch) -> None:
        """Of the rows of a batch in flight the spool has the one copy from now on."""
        self._settle("spooled", self._land(batch))

    def go_home(self, batch: Batch) -> None:
        """Leave the rows of a fetched batch where they were fetched from."""
        home = self._homes[batch.id]
        self._settle(home, self._land(batch))

    def go_home_all(self) -> None:
        """Leave every fetched batch where it was fetched from."""
        for batch_id in tuple(self._homes):
            self.go_home(Batch(batch_id, ()))

    def home(self, batch: Batch) -> Home | None:
        """Where the rows of a batch in flight were fetched from; None for those that came from a call."""
        return self._homes.get(batch.id)

    def has_fetched(self, home: Home) -> bool:
        """Whether any batch in flight was fetched from there."""
        return home in self._homes.values()

    def launch_queue(self, max_rows: int, max_bytes: int) -> None:
        """Put every queued row into batches in flight."""
        while self.claim(max_rows, max_bytes):
            pass

    def flying(self) -> list[Batch]:
        """The batches in flight."""
        return [Batch(batch_id, tuple(e.row for e in entries)) for batch_id, entries in self._flights.items()]

    # --- the last bucket

    def commit(self, batch: Batch, duplicates: int) -> None:
        """The sink has every row; ``duplicates`` of them it had before.

        Which rows these were no sink tells; the split matters for the counts alone.
        """
        entries = self._land(batch)
        known = min(max(duplicates, 0), len(entries))
        if 0 < known < len(entries):  # a call that a crash ended is the likeliest to have its row already
            entries = tuple(sorted(entries, key=lambda entry: entry.row.end_reason != "crash"))
        self._settle("committed", entries[known:])
        self._settle("duplicates", entries[:known])

    def dead_letter(self, batch: Batch) -> None:
        """The rows of a batch are in the dead letters."""
        self._settle("dead_lettered", self._land(batch))

    def abandon(self, batch: Batch) -> tuple[Entry, ...]:
        """Give up a batch in flight; its rows are counted and returned, to be named."""
        entries = self._land(batch)
        self._settle("abandoned", entries)
        return entries

    def abandon_queue(self) -> tuple[Entry, ...]:
        """Give up every queued row; they are counted and returned, to be named."""
        entries = self._dequeue(len(self._queue))
        self._settle("abandoned", entries)
        return entries

    def abandon_all(self) -> tuple[Entry, ...]:
        """Give up every row in flight or queued; they are counted and returned, to be named."""
        flying = [Batch(batch_id, ()) for batch_id in self._flights]
        entries = [entry for batch in flying for entry in self.abandon(batch)]
        return (*entries, *self.abandon_queue())

    def holds(self, batch: Batch) -> bool:
        """Whether the batch is still in flight, that is, not settled."""
        return batch.id in self._flights

    # --- looking

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def is_empty(self) -> bool:
        """No row and no outstanding place."""
        return self.room.rows == 0

    @property
    def is_bare(self) -> bool:
        """No row, though there may be places."""
        return not self._queue and not self._flights

    @property
    def queue_head(self) -> Entry | None:
        """The oldest queued row."""
        return self._queue[0] if self._queue else None

    def oldest(self) -> Entry | None:
        """The unsettled row that was accepted, or fetched, first."""
        heads = [entries[0] for entries in self._flights.values()]
        if self._queue:
            heads.append(self._queue[0])
        return min(heads, key=lambda entry: entry.accepted_at, default=None)

    def is_settled(self, watermark: int) -> bool:
        """Whether every row of this boot up to number ``watermark`` is settled, or with the spool."""
        heads = chain((entries[0] for entries in self._flights.values()), self._queue_heads())
        return not any(self._is_below(entry, watermark) for entry in heads)

    def unsettled(self, watermark: int) -> int:
        """How many rows of this boot up to number ``watermark`` are not settled."""
        flying = (entry for entries in self._flights.values() for entry in entries)
        return sum(self._is_below(entry, watermark) for entry in chain(flying, self._queue))

    def _queue_heads(self) -> Sequence[Entry]:
        return (self._queue[0],) if self._queue else ()

    def _is_below(self, entry: Entry, watermark: int) -> bool:
        return entry.row.boot_id == self.boot_id and entry.row.seq <= watermark

    def counts(self) -> LedgerCounts:
        """The equation's terms as they stand."""
        return LedgerCounts(
            accepted=self._accepted + self._recovered,
            recovered=self._recovered,
            committed=self._settled["committed"],
            duplicates=self._settled["duplicates"],
            dead_lettered=self._settled["dead_lettered"],
            spooled=self._settled["spooled"],
            abandoned=self._settled["abandoned"],
            queued=len(self._queue),
            in_flight=self._in_flight,
        )

    def _numbered(self, row: UsageRecord) -> UsageRecord:
        if row.boot_id is not None:
            return row
        self.last_seq += 1
        return stamped(row, row.id, self.boot_id, self.last_seq)

    # --- one door in, one door out

    def _launch(self, entries: tuple[Entry, ...]) -> Batch:
        batch = Batch.of(tuple([entry.row for entry in entries]))
        self._fly(batch, entries)
        return batch

    def _fly(self, batch: Batch, entries: tuple[Entry, ...]) -> None:
        self._flights[batch.id] = entries
        self._in_flight += len(entries)
        self.room.add(len(entries), _size(entries))

    def _land(self, batch: Batch) -> tuple[Entry, ...]:
        entries = self._flights.pop(batch.id)
        self._homes.pop(batch.id, None)
        self._in_flight -= len(entries)
        self._uncount(entries)
        return entries

    def _uncount(self, entries: Sequence[Entry]) -> int:
        """These leave queue or flight, for good or for the next; how many bytes they are."""
        size = _size(entries)
        self.room.remove(len(entries), size)
        return size

    def _settle(self, bucket: Bucket, entries: Sequence[Entry]) -> None:
        if entries:
            self._settled[bucket] += len(entries)
            self._on_settled(bucket, entries)


def _size(entries: Sequence[Entry]) -> int:
    return sum([entry.size for entry in entries])
