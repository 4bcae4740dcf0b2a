"""What a dead letter is, and what the core expects of whoever keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from ..codec import timestamp_text, to_json
from ..errors import DeadLettersUnavailable
from ..record import Batch, Boot, UsageRecord


class LettersFull(DeadLettersUnavailable):
    """There is no room for another letter; the file itself is well."""


class LettersCorrupt(DeadLettersUnavailable):
    """The file is no file of letters, or SQLite finds it damaged: it has to be set aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A refused row: by which sink, with which code, after how many attempts (first try included)."""

    row: UsageRecord
    sink: str
    code: str
    message: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLetter:
    """A letter as it lies in its file, refused last at ``at`` (UTC). ``row`` is None if it cannot be read;
    ``is_marked`` says that it is to be sent again."""

    row_id: UUID
    boot_id: UUID | None
    seq: int
    sink: str
    code: str
    message: str
    attempts: int
    at: datetime
    is_marked: bool
    row: UsageRecord | None

    def to_json(self) -> dict[str, Any]:
        """The letter as JSON values."""
        return {
            "row_id": str(self.row_id),
            "boot_id": str(self.boot_id) if self.boot_id else None,
            "seq": self.seq,
            "sink": self.sink,
            "code": self.code,
            "message": self.message,
            "attempts": self.attempts,
            "at": timestamp_text(self.at),
            "is_marked": self.is_marked,
            "row": to_json(self.row) if self.row else None,
        }


class DeadLetters(Protocol):
    """Where refused rows go. Synchronous and small, because rows change owner here; for one thread."""

    @property
    def trouble(self) -> str | None:
        """Why letters cannot be read or kept just now; None when all is well."""
        ...

    def open(self, owner: UUID | None = None) -> frozenset[UUID]:
        """Claim the file for the boot ``owner``; the rows of earlier runs that have a letter there or with
        the dead. Never raises: trouble is shown, the file is tried again; ``adopt`` tells what is found."""
        ...

    def take_found(self) -> frozenset[UUID]:
        """Rows of earlier runs that were found since this, ``open`` or ``adopt`` was last asked."""
        ...

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep ``letters``; returning means on disk. All or none. A row that has a letter has no second one:
        its letter says the new reason, counts the attempts on and loses its mark.

        Raises ``DeadLettersUnavailable`` when full or failing; may be repeated then.
        """
        ...

    def marked(self) -> Batch | None:
        """Rows that somebody wants to be sent again, some hundreds at most; None if there are none. Asked
        again before those are settled it may give them again. Never raises."""
        ...

    def remove(self, rows: Iterable[UUID]) -> None:
        """The sink has these. May be repeated. Never raises: a letter that cannot be removed now is not
        given again while we run; after a crash it may be, which changes nothing."""
        ...

    def adopt(self) -> frozenset[UUID]:
        """Take over the letters of dead siblings; the rows that this, or opening the file at last, has
        found. Never raises. May be repeated."""
        ...

    def keep_boot(self, boot: Boot) -> None:
        """Keep what the sink was not told of ``boot``; returning means on disk. May be repeated.
        Raises ``DeadLettersUnavailable``."""
        ...

    def kept_boots(self) -> Sequence[Boot]:
        """What was kept and not dropped. Never raises."""
        ...

    def drop_boot(self, boot_id: UUID) -> None:
        """The sink knows. May be repeated. Never raises: what cannot be dropped is told again."""
        ...
