"""The file of refused rows: a letter that was taken is on disk, whole; one that was not leaves no trace."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from backends import DeadLetterFile, KeptLetter, letters_in, mark_letters
from backends.dead_letters import DeadLetter, unstored_boots
from backends.dead_letters.store import LetterStore
from backends.errors import DeadLettersUnavailable
from backends.record import Boot, UsageRecord, stamped
from backends.testing import make_full_record, make_record

BOOT = UUID("01900000-0000-7000-8000-000000000001")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def letter(row: UsageRecord | None = None, code: str = "22021") -> DeadLetter:
    return DeadLetter(row=row or make_record(), sink="acme", code=code, message="not storable", attempts=3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "dead"


@pytest.fixture
def file(root: Path) -> Iterator[DeadLetterFile]:
    file = DeadLetterFile(root)
    assert file.open() == frozenset()
    yield file
    file.close()


def letters(root: Path) -> list[KeptLetter]:
    return list(letters_in(root))


def ids(root: Path) -> list[UUID]:
    return [each.row_id for each in letters(root)]


def change(root: Path, sql: str, instance: int = 1) -> None:
    with closing(sqlite3.connect(root / f"instance-{instance}" / "letters.db")) as connection:
        connection.execute(sql)
        connection.commit()


# --- keeping


def test_a_letter_holds_the_row_and_why_it_was_refused(file: DeadLetterFile, root: Path) -> None:
    row = stamped(make_full_record(), uuid7(), BOOT, 7)

    file.add([letter(row)])

    (found,) = letters(root)
    assert (found.row_id, found.boot_id, found.seq, found.row) == (row.id, BOOT, 7, row)
    told = (found.sink, found.code, found.message, found.attempts, found.is_marked)
    assert told == ("acme", "22021", "not storable", 3, False)
    assert found.at <= datetime.now(UTC)


def test_a_letter_is_on_disk_when_it_is_taken(file: DeadLetterFile, root: Path) -> None:
    file.add([letter(), letter()])

    with closing(sqlite3.connect(root / "instance-1" / "letters.db")) as beside:
        assert beside.execute("SELECT count(*) FROM letters").fetchone() == (2,)
    assert file._store is not None
    assert file._store._connection.execute("PRAGMA synchronous").fetchone() == (2,), "every commit is synced"


def test_letters_are_added_to_those_that_are_there_the_oldest_first(file: DeadLetterFile, root: Path) -> None:
    rows = [make_record() for _ in range(3)]

    for row in reversed(rows):
        file.add([letter(row)])

    assert ids(root) == [row.id for row in reversed(rows)]


def test_a_row_that_is_refused_again_has_one_letter_with_the_new_reason_and_no_mark(
    file: DeadLetterFile, root: Path
) -> None:
    row = make_record()
    file.add([letter(row)])
    mark_letters(root)

    file.add([replace(letter(row, code="23514"), attempts=2)])

    (found,) = letters(root)
    assert (found.code, found.attempts, found.is_marked) == ("23514", 5, False)


def test_a_row_that_json_cannot_hold_is_a_letter_all_the_same(file: DeadLetterFile, root: Path) -> None:
    file.add([letter(make_record(user_id=b"\xff", prompt_tokens=object(), latency_ms=float("nan")))])
    file.add([replace(letter(), message="\ud800 is half a pair")])

    assert len(letters(root)) == 2


def test_a_full_file_takes_nothing_and_stays_as_it_is(root: Path) -> None:
    file = DeadLetterFile(root, max_bytes=64 * 1024)
    file.add([letter()])
    before = ids(root)

    with pytest.raises(DeadLettersUnavailable, match="max_bytes"):
        file.add([letter() for _ in range(1000)])

    assert (ids(root), file.trouble) == (before, None)
    file.add([letter()])
    file.keep_boot(Boot(id=BOOT, started_at=MOMENT))
    assert len(ids(root)) == 2
    file.close()


def test_a_full_file_has_room_again_once_letters_are_removed(root: Path) -> None:
    file = DeadLetterFile(root, max_bytes=200 * 1024)
    rows = [make_record() for _ in range(100)]
    with pytest.raises(DeadLettersUnavailable):
        while True:
            file.add([letter(row) for row in rows])
            rows = [make_record() for _ in range(100)]

    file.remove(ids(root))

    file.add([letter(row) for row in rows])
    assert ids(root) == [row.id for row in rows]
    file.close()


def test_a_folder_that_cannot_be_made_is_said_so_and_tried_again(root: Path) -> None:
    root.touch()
    file = DeadLetterFile(root)

    assert file.open() == frozenset()
    assert file.trouble is not None and str(root) in file.trouble
    with pytest.raises(DeadLettersUnavailable, match=str(root)):
        file.add([letter()])
    root.unlink()
    file.add([letter()])

    assert (len(letters(root)), file.trouble) == (1, None)
    file.close()


@pytest.mark.parametrize("statement", ["add_letter", "drop_mark"])
def test_a_letter_that_could_not_be_kept_leaves_no_trace(
    file: DeadLetterFile, root: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    file.add([letter()])
    before, many = ids(root), LetterStore._many

    def failing(store: LetterStore, name: str, values: object) -> None:
        many(store, name, values)  # type: ignore[arg-type]
        if name == statement:
            raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(LetterStore, "_many", failing)
        with pytest.raises(DeadLettersUnavailable, match=str(root)):
            file.add([letter(), letter()])

    assert ids(root) == before
    file.add([letter()])
    assert len(ids(root)) == 2


def test_a_file_that_is_held_by_somebody_for_too_long_is_trouble_that_passes(
    file: DeadLetterFile, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.close()
    monkeypatch.setattr("backends.dead_letters.store.BUSY_S", 0.01)
    with closing(sqlite3.connect(root / "instance-1" / "letters.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DeadLettersUnavailable, match="SQLITE_BUSY"):
            file.add([letter()])
        assert file.trouble
        other.rollback()

    file.add([letter()])

    assert file.trouble is None


# --- finding


def test_what_earlier_runs_left_is_found_once(root: Path) -> None:
    first = DeadLetterFile(root)
    rows = [make_record() for _ in range(3)]
    first.add([letter(row) for row in rows])
    first.close()

    second = DeadLetterFile(root)

    assert second.open() == {row.id for row in rows}
    assert second.adopt() == frozenset()
    second.close()


def test_a_file_that_could_not_be_opened_at_the_start_tells_later_what_is_in_it(root: Path) -> None:
    first = DeadLetterFile(root)
    kept, refused_again = make_record(), make_record()
    first.add([letter(kept), letter(refused_again)])
    first.close()
    away = root.rename(root.with_name("away"))
    root.touch()
    second = DeadLetterFile(root)
    assert second.open() == frozenset()
    root.unlink()
    away.rename(root)

    second.add([letter(refused_again), letter()])

    assert second.adopt() == {kept.id}, "those that this run put there are not found"
    second.close()


def test_two_instances_have_a_file_each_and_the_dead_ones_letters_are_adopted(
    file: DeadLetterFile, root: Path
) -> None:
    dead, mine = DeadLetterFile(root), make_record()
    assert dead.open() == frozenset()
    rows = [make_record() for _ in range(1200)]
    dead.add([letter(row) for row in rows])
    dead.keep_boot(Boot(id=BOOT, started_at=MOMENT))
    file.add([letter(mine)])
    mark_letters(root, [rows[1].id])
    assert file.adopt() == frozenset(), "its owner lives"
    dead.close()

    assert file.adopt() == {row.id for row in rows}
    assert file.adopt() == frozenset()

    assert ids(root) == [mine.id, *(row.id for row in rows)]
    assert [each.row_id for each in letters(root) if each.is_marked] == [rows[1].id]
    assert [boot.id for boot in file.kept_boots()] == [BOOT]
    batch = file.marked()
    assert batch is not None and batch.rows == (rows[1],)


def test_an_adoption_that_was_cut_short_is_finished_by_the_next(
    file: DeadLetterFile, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, row = DeadLetterFile(root), make_record()
    dead.open()
    dead.add([letter(row)])
    dead.close()
    with monkeypatch.context() as dying:
        many = LetterStore._many

        def die(store: LetterStore, name: str, values: object) -> None:
            if name == "drop_letter":
                raise KeyboardInterrupt
            many(store, name, values)  # type: ignore[arg-type]

        dying.setattr(LetterStore, "_many", die)
        with pytest.raises(KeyboardInterrupt):
            file.adopt()

    assert ids(root) == [row.id]
    file.adopt()
    assert ids(root) == [row.id]


def test_a_corrupt_file_is_set_aside_and_a_new_one_begun(root: Path) -> None:
    folder = root / "instance-1"
    folder.mkdir(parents=True)
    (folder / "letters.db").write_bytes(b"no database at all" * 1000)
    file = DeadLetterFile(root)

    assert file.open() == frozenset()
    file.add([letter()])

    assert len(letters(root)) == 1
    assert len(list(folder.glob("letters.db.corrupt-*"))) == 1
    file.close()


def test_a_folder_that_was_taken_away_is_made_again_for_the_next_letter(
    file: DeadLetterFile, root: Path
) -> None:
    file.add([letter()])
    root.rename(root.with_name("away"))

    file.add([letter()])

    assert len(ids(root)) == 1
    assert len(ids(root.with_name("away"))) == 1


@pytest.mark.parametrize("number", [1, 7])
def test_a_folder_that_is_not_ours_to_lock_makes_nobody_ill(root: Path, number: int) -> None:
    odd = root / f"instance-{number}"
    (odd / "lock").mkdir(parents=True)  # as good as one that another user made
    (odd / "letters.db").touch()
    file = DeadLetterFile(root)

    assert file.open() == frozenset()
    file.add([letter()])
    file.adopt()

    assert file.trouble is None
    file.close()


def test_letters_of_the_dead_stay_where_they_are_while_there_is_no_room(root: Path) -> None:
    dead = DeadLetterFile(root)
    dead.open()
    file = DeadLetterFile(root, max_bytes=100 * 1024)
    assert file.open() == frozenset()
    rows = [make_record() for _ in range(400)]
    dead.add([letter(row) for row in rows])
    dead.close()

    assert file.adopt() == frozenset()

    assert len(ids(root)) == 400
    later = DeadLetterFile(root)
    assert later.open() == {row.id for row in rows}
    file.close()
    later.close()


# --- sending again


def test_what_is_marked_is_given_until_it_is_removed(file: DeadLetterFile, root: Path) -> None:
    rows = [make_record() for _ in range(3)]
    file.add([letter(row) for row in rows])
    assert file.marked() is None

    assert mark_letters(root, [rows[2].id, rows[0].id, uuid7()]) == 2

    for _ in range(2):
        batch = file.marked()
        assert batch is not None and {row.id for row in batch.rows} == {rows[0].id, rows[2].id}
    file.remove([rows[0].id])
    file.remove([rows[0].id])
    batch = file.marked()
    assert batch is not None and batch.rows == (rows[2],)
    assert ids(root) == [rows[1].id, rows[2].id]


def test_letters_are_marked_by_their_code_or_all(file: DeadLetterFile, root: Path) -> None:
    rows = [make_record() for _ in range(3)]
    file.add([letter(row, code=f"C{n}") for n, row in enumerate(rows)])

    assert mark_letters(root, code="C1") == 1
    assert [each.code for each in letters(root) if each.is_marked] == ["C1"]
    assert mark_letters(root) == mark_letters(root) == 3
    assert all(each.is_marked for each in letters(root))


def test_no_more_than_some_hundreds_are_given_at_once(file: DeadLetterFile, root: Path) -> None:
    file.add([letter() for _ in range(1100)])
    mark_letters(root)

    sizes = []
    while batch := file.marked():
        sizes.append(len(batch.rows))
        file.remove(row.id for row in batch.rows)

    assert sizes == [500, 500, 100]


def test_a_letter_that_cannot_be_removed_is_not_given_again_and_goes_later(
    file: DeadLetterFile, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [make_record(), make_record()]
    file.add([letter(row) for row in rows])
    mark_letters(root)
    with monkeypatch.context() as broken:
        broken.setattr(LetterStore, "remove", _broken)
        file.remove([rows[0].id])

        batch = file.marked()

        assert batch is not None and batch.rows == (rows[1],)
        assert len(ids(root)) == 2
    file.marked()
    assert ids(root) == [rows[1].id]


def _broken(*_: object) -> None:
    raise DeadLettersUnavailable("no")


def test_a_damaged_letter_shows_and_is_never_sent(file: DeadLetterFile, root: Path) -> None:
    rows = [make_record(), make_record()]
    file.add([letter(row) for row in rows])
    change(root, f"UPDATE letters SET body = X'7b7d' WHERE row_id = '{rows[0].id}'")
    mark_letters(root)

    batch = file.marked()

    assert batch is not None and batch.rows == (rows[1],)
    damaged = letters(root)[0]
    assert (damaged.row_id, damaged.row, damaged.is_marked) == (rows[0].id, None, False)


def test_a_damaged_id_of_a_letter_does_not_keep_the_file_from_being_opened(root: Path) -> None:
    file = DeadLetterFile(root)
    file.open()
    rows = [make_record(), make_record()]
    file.add([letter(row) for row in rows])
    file.close()
    change(root, f"UPDATE letters SET row_id = 'x' || substr(row_id, 2) WHERE row_id = '{rows[0].id}'")

    file = DeadLetterFile(root)

    assert rows[1].id in file.open()
    file.close()


def test_damaged_letters_do_not_hide_those_behind_them(file: DeadLetterFile, root: Path) -> None:
    rows = [make_record() for _ in range(501)]
    file.add([letter(row) for row in rows])
    change(root, f"UPDATE letters SET crc = crc + 1 WHERE row_id <> '{rows[500].id}'")
    mark_letters(root)

    batch = file.marked()

    assert batch is not None and batch.rows == (rows[500],)


# --- looking


def test_there_is_nothing_to_see_where_nothing_is(root: Path) -> None:
    assert (letters(root), unstored_boots(root), mark_letters(root)) == ([], [], 0)
    assert not root.exists()


def test_a_file_that_its_owner_has_only_just_made_reads_as_empty(root: Path) -> None:
    (root / "instance-1").mkdir(parents=True)
    (root / "instance-1" / "letters.db").touch()

    assert (letters(root), unstored_boots(root)) == ([], [])


# --- boots


def test_a_boot_is_kept_as_it_was_told_last_until_it_is_dropped(file: DeadLetterFile, root: Path) -> None:
    boot = Boot(id=BOOT, started_at=MOMENT, closed_at=MOMENT, last_seq=9, abandoned="5-7,9")
    file.keep_boot(replace(boot, last_seq=8, abandoned="5-7"))
    file.keep_boot(boot)
    file.keep_boot(Boot(id=uuid7(), started_at=MOMENT))

    assert file.kept_boots()[0] == boot
    assert unstored_boots(root) == file.kept_boots()
    file.drop_boot(BOOT)
    file.drop_boot(BOOT)
    assert len(file.kept_boots()) == 1
