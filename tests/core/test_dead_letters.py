"""The file of refused rows: a letter that was taken is on disk, whole; one that was not leaves no trace."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from backends import DeadLetterFile
from backends.codec import from_json
from backends.dead_letters import DeadLetter
from backends.errors import DeadLettersUnavailable
from backends.record import UsageRecord
from backends.testing import make_full_record, make_record

BOOT = UUID("01900000-0000-7000-8000-000000000001")


def letter(row: UsageRecord | None = None) -> DeadLetter:
    return DeadLetter(row=row or make_record(), sink="acme", code="22021", message="not storable", attempts=3)


def lines(file: DeadLetterFile) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.path.read_text().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> DeadLetterFile:
    return DeadLetterFile(tmp_path / "dead", BOOT)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int | str]:
    """At each fsync, the size of the file, or that it was a folder."""
    synced: list[int | str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return synced


def test_a_letter_holds_the_row_and_why_it_was_refused(file: DeadLetterFile) -> None:
    row = make_full_record()

    file.add([letter(row)])

    (line,) = lines(file)
    told = line.pop("row")
    assert isinstance(told, dict) and from_json(told) == row
    assert line.pop("at")
    assert line == {"sink": "acme", "code": "22021", "message": "not storable", "attempts": 3}


def test_a_letter_is_on_disk_when_it_is_taken(file: DeadLetterFile, syncs: list[int | str]) -> None:
    file.add([letter(), letter()])
    first = file.path.stat().st_size
    file.add([letter()])

    assert syncs == [first, "folder", file.path.stat().st_size]
    assert len(lines(file)) == 3


def test_letters_are_added_to_those_that_are_there(file: DeadLetterFile) -> None:
    for _ in range(3):
        file.add([letter()])

    assert len(lines(file)) == 3


def test_no_file_is_made_without_a_letter_and_each_boot_has_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "dead"
    first, second = DeadLetterFile(folder, BOOT), DeadLetterFile(folder, uuid7())
    assert not folder.exists()

    first.add([letter()])
    second.add([letter()])

    assert len(list(folder.iterdir())) == 2


def test_a_row_that_json_cannot_hold_is_a_letter_all_the_same(file: DeadLetterFile) -> None:
    file.add([letter(make_record(user_id=b"\xff", prompt_tokens=object(), latency_ms=float("nan")))])

    assert len(lines(file)) == 1


def test_a_full_file_takes_nothing_and_stays_as_it_is(tmp_path: Path) -> None:
    file = DeadLetterFile(tmp_path, BOOT, max_bytes=2000)
    file.add([letter()])
    before = file.path.read_bytes()

    with pytest.raises(DeadLettersUnavailable, match="max_bytes"):
        file.add([letter(), letter(), letter()])

    assert file.path.read_bytes() == before
    file.add([letter()])
    assert len(lines(file)) == 2


def short_write(descriptor: int, data: bytes) -> int:
    return REAL_WRITE(descriptor, data[: len(data) // 2])


def full_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


REAL_WRITE = os.write


@pytest.mark.parametrize(
    ("call", "fault"),
    [("write", short_write), ("write", full_disk), ("fsync", full_disk)],
    ids=["short write", "full disk", "fsync error"],
)
def test_a_letter_that_could_not_be_kept_leaves_no_half_line(
    file: DeadLetterFile, monkeypatch: pytest.MonkeyPatch, call: str, fault: Callable[..., int]
) -> None:
    file.add([letter()])
    before = file.path.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(os, call, fault)

        with pytest.raises(DeadLettersUnavailable, match=str(file.path)):
            file.add([letter(), letter()])

    assert file.path.read_bytes() == before
    file.add([letter()])
    assert len(lines(file)) == 2


def test_a_folder_that_cannot_be_made_is_said_so_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "dead").touch()
    file = DeadLetterFile(tmp_path / "dead", BOOT)

    with pytest.raises(DeadLettersUnavailable):
        file.add([letter()])
    (tmp_path / "dead").unlink()
    file.add([letter()])

    assert len(lines(file)) == 1


def test_half_a_line_that_cannot_be_taken_back_spoils_no_later_letter(
    file: DeadLetterFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.add([letter()])
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", short_write)
        broken.setattr(os, "ftruncate", full_disk)
        with pytest.raises(DeadLettersUnavailable):
            file.add([letter()])

    file.add([letter()])

    whole = [text for text in file.path.read_text().splitlines() if _is_json(text)]
    assert len(whole) == 2


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
