"""What others than the owner do with files of dead letters: look into them, mark rows to be sent again, and
deliver for owners that are gone.

Safe beside running owners: looking changes nothing, a mark is a short transaction, delivering needs the
owner's lock. All raise ``DeadLettersUnavailable`` for files that cannot be read.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from ..errors import DeadLettersUnavailable, Rejection, SinkBatchRejected, SinkRetryable, SinkRowsRejected
from ..record import Batch, Boot
from ..sink import LogSink
from ..spool.folders import PREFIX, abandoned
from .file import FILE_NAME, REPLAY_ROWS
from .letter import DeadLetter, KeptLetter

if TYPE_CHECKING:
    from .store import LetterStore


def letters_in(root: Path) -> Iterator[KeptLetter]:
    """Every letter of every instance under ``root``, each row once."""
    seen: set[UUID] = set()
    for path in _files(root):
        with _open(path, may_change=False) as store:
            for letter in store.letters():
                if letter.row_id not in seen:  # else it was moved while we looked
                    seen.add(letter.row_id)
                    yield letter


def unstored_boots(root: Path) -> list[Boot]:
    """What every instance under ``root`` keeps of the boots whose end no sink was told of."""
    boots: list[Boot] = []
    for path in _files(root):
        with _open(path, may_change=False) as store:
            boots += store.boots()
    return boots


def mark_letters(root: Path, ids: Sequence[UUID] | None = None, code: str | None = None) -> int:
    """Mark the letters of ``ids``, or with ``code``, or else all, under ``root``; how many that are. May be
    repeated."""
    marked = 0
    for path in _files(root):
        with _open(path) as store:
            chosen = store.row_ids() if code is None else store.row_ids_with(code)
            if ids is not None:
                chosen &= set(ids)
            store.mark(chosen)
            marked += len(chosen)
    return marked


# --- in place of an owner


@dataclass(slots=True)
class Replayed:
    """How many rows the sink took, and how many it refused again, by code."""

    delivered: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class UnownedLetters:
    """The files whose owners are gone, which are ours as long as this is open."""

    def __init__(self, stores: Sequence[LetterStore]) -> None:
        self._stores = stores

    def has_marked(self) -> bool:
        """Whether there is anything to deliver."""
        return any(store.marked(1) for store in self._stores)

    async def deliver(
        self, sink: LogSink, sink_name: str, attempt_timeout_s: float, replayed: Replayed
    ) -> None:
        """Send every marked row, remove what was taken, and count in ``replayed``. Raises as
        ``LogSink.write`` does when the sink cannot take rows now. Whatever ends it, it may be repeated: a row
        that was taken and not yet removed is sent again, which changes nothing."""
        for store in self._stores:
            delivery = _Delivery(store, sink, sink_name, attempt_timeout_s, replayed)
            while rows := store.marked(REPLAY_ROWS):
                await delivery.send(Batch.of(rows))


@contextmanager
def unowned_letters(root: Path) -> Iterator[UnownedLetters]:
    """``with unowned_letters(root) as letters``: those of every instance that does not run."""
    with ExitStack() as stack:
        stores = []
        for folder in abandoned(root, FILE_NAME):
            stack.callback(folder.release)
            stores.append(stack.enter_context(_open(folder.path / FILE_NAME)))
        yield UnownedLetters(stores)


@dataclass(frozen=True, slots=True)
class _Delivery:
    store: LetterStore
    sink: LogSink
    sink_name: str
    attempt_timeout_s: float
    replayed: Replayed

    async def send(self, batch: Batch) -> None:
        """See to every row of ``batch``: it is taken, or refused and no longer marked."""
        waiting = [batch]
        while waiting:
            batch = waiting.pop()
            try:
                await self._write(batch)
            except SinkRowsRejected as error:
                waiting += self._without_refused(batch, error)
            except SinkBatchRejected as error:
                waiting += self._halves(batch, error)
            else:
                self._taken(batch)

    async def _write(self, batch: Batch) -> None:
        try:
            async with asyncio.timeout(self.attempt_timeout_s):
                await self.sink.write(batch)
        except TimeoutError:
            raise SinkRetryable("timeout", f"no answer in {self.attempt_timeout_s:g} s") from None

    def _without_refused(self, batch: Batch, error: SinkRowsRejected) -> list[Batch]:
        refused = {index: why for index, why in error.rejected.items() if 0 <= index < len(batch.rows)}
        if not refused:  # a sink that names no row of ours has named no culprit
            return self._halves(batch, SinkBatchRejected(error.code, error.message))
        self._refused(batch, refused)
        rest = tuple(row for index, row in enumerate(batch.rows) if index not in refused)
        if rest and error.stored is None:
            return [Batch.of(rest)]
        self._taken(Batch.of(rest))
        return []

    def _halves(self, batch: Batch, error: SinkBatchRejected) -> list[Batch]:
        if len(batch.rows) == 1:
            self._refused(batch, {0: Rejection(error.code, error.message)})
            return []
        middle = len(batch.rows) // 2
        return [Batch.of(batch.rows[:middle]), Batch.of(batch.rows[middle:])]

    def _taken(self, batch: Batch) -> None:
        self.store.remove([row.id for row in batch.rows])
        self.replayed.delivered += len(batch.rows)

    def _refused(self, batch: Batch, refused: Mapping[int, Rejection]) -> None:
        letters = [
            DeadLetter(
                row=batch.rows[index], sink=self.sink_name, code=why.code, message=why.message, attempts=1
            )
            for index, why in refused.items()
        ]
        self.store.add(letters, max_bytes=sys.maxsize)  # no new letter comes of it
        for letter in letters:
            self.replayed.refused[letter.code] = self.replayed.refused.get(letter.code, 0) + 1


def _files(root: Path) -> list[Path]:
    try:
        return sorted(root.glob(f"{PREFIX}*/{FILE_NAME}"))
    except OSError as error:
        raise DeadLettersUnavailable(f"{root}: {error.strerror or type(error).__name__}") from error


@contextmanager
def _open(path: Path, *, may_change: bool = True) -> Iterator[LetterStore]:
    from .store import LetterStore

    store = LetterStore(path, may_change=may_change)
    try:
        yield store
    finally:
        store.close()
