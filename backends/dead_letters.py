"""Rows that a sink refuses for good, kept as JSON lines beside the spool.

Takes a refused row and the reason; returns once it is on disk. One file per boot, made with the first
letter, so that no two processes share one. Never drops a letter: when there is no room it says so and
the row stays with the core.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID

from .codec import timestamp_text, to_json
from .errors import DeadLettersUnavailable
from .record import UsageRecord

DEFAULT_MAX_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A refused row: by which sink, with which code, after how many attempts (first try included)."""

    row: UsageRecord
    sink: str
    code: str
    message: str
    attempts: int


class DeadLetters(Protocol):
    """Where refused rows go."""

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep ``letters``; returning means on disk. All or none.

        Synchronous, because the row changes owner here. Raises ``DeadLettersUnavailable`` when full or
        failing; may be repeated then.
        """
        ...

    def remove(self, rows: Sequence[UUID]) -> None:
        """The sink has these after all. Never raises; what cannot be removed is sent again later."""
        ...


class DeadLetterFile:
    """The letters of one boot: ``<folder>/letters-<boot_id>.jsonl``, at most ``max_bytes`` long."""

    def __init__(self, folder: Path, boot_id: UUID, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.path = folder / f"letters-{boot_id}.jsonl"
        self._max_bytes = max_bytes

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """See ``DeadLetters.add``. Blocks for one fsync; letters are rare."""
        lines = "".join(_line(letter) for letter in letters).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:
                self._append(file.fileno(), lines)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DeadLettersUnavailable(f"{self.path}: {reason}") from error

    def _append(self, descriptor: int, lines: bytes) -> None:
        before = os.fstat(descriptor).st_size
        if before and os.pread(descriptor, 1, before - 1) != b"\n":
            lines = b"\n" + lines  # half a line that could not be taken back must not spoil this one
        if before + len(lines) > self._max_bytes:
            raise DeadLettersUnavailable(f"{self.path} would grow over dead_letters.max_bytes")
        try:
            written = os.write(descriptor, lines)
            if written != len(lines):
                raise OSError("short write")
            os.fsync(descriptor)
            if not before:
                _sync_folder(self.path.parent)
        except OSError:
            os.ftruncate(descriptor, before)  # all or none: half a line must not stay
            raise


def _sync_folder(folder: Path) -> None:
    """A new file is on disk only once its name is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(letter: DeadLetter) -> str:
    fields = {
        "at": timestamp_text(datetime.now(UTC)),
        "sink": letter.sink,
        "code": letter.code,
        "message": letter.message,
        "attempts": letter.attempts,
        "row": to_json(letter.row),
    }
    return json.dumps(fields, default=repr) + "\n"
