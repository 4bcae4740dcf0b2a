"""Files of spools and dead letters as somebody else than their owner reads them: nothing changes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest
from msgspec import structs
from uuid_utils.compat import uuid7

from backends.auditing import audit_usage
from backends.codec import to_json
from backends.dead_letters import DeadLetter
from backends.dead_letters.store import LetterStore
from backends.memory import MemoryOptions, MemorySink
from backends.ranges import Ranges
from backends.record import Batch, Boot
from backends.spool.changes import Changes
from backends.spool.reading import read_letters, read_spools, spooled_rows
from backends.spool.store import SpoolStore
from backends.testing import MOMENT, make_records

BOOT = uuid7()


def numbered(count):
    return tuple(structs.replace(row, boot_id=BOOT, seq=n) for n, row in enumerate(make_records(count), 1))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "spool" / "instance-1"
    folder.mkdir(parents=True)
    return folder


@contextmanager
def store_in(folder):
    with closing(SpoolStore(folder / "spool.db", "normal")) as store:
        yield store


@contextmanager
def held(folder):
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


def only(reports):
    (report,) = reports
    return report


def bytes_in(folder):
    """Every file with its content; of the log's index, which is no data, only that it is there."""
    return {path.name: path.name.endswith("-shm") or path.read_bytes() for path in folder.iterdir()}


KILLED = """
import json, os, signal, sys
from pathlib import Path
from backends.codec import from_json
from backends.spool.changes import Changes
from backends.spool.store import SpoolStore
store = SpoolStore(Path(sys.argv[1]), "normal")
store.apply(Changes(rows=[from_json(json.loads(line)) for line in sys.stdin]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_with(folder, count):
    """A process spooled rows and was killed: what SQLite leaves behind then."""
    lines = "".join(f"{json.dumps(to_json(row))}\n" for row in numbered(count))
    command = (sys.executable, "-c", KILLED, str(folder / "spool.db"))
    subprocess.run(command, input=lines, text=True, timeout=60)


def test_where_nothing_is_there_is_nothing_to_report(tmp_path):
    assert read_spools(tmp_path / "none") == ()
    assert read_letters(tmp_path / "none") == ()
    assert list(tmp_path.iterdir()) == []


def test_beside_its_owner_everything_is_seen_and_stays_as_it_is(folder):
    rows = numbered(6)
    intent = structs.replace(make_records(1)[0], timestamp=MOMENT.replace(year=2020))
    with store_in(folder) as store, held(folder):
        store.sign(str(BOOT))
        store.apply(Changes(rows=list(rows[:2]), batches=[Batch.of(rows[2:5]), Batch.of(rows[5:])]))
        store.apply(Changes(intents=[intent]))
        before = bytes_in(folder)

        report = only(read_spools(folder.parent))

        assert bytes_in(folder) == before
        assert (report.rows, report.intents, report.batches, report.damaged) == (6, 1, 2, 0)
        assert (report.is_owned, report.owner, report.trouble) == (True, BOOT, None)
        assert report.numbers == {BOOT: Ranges.of(range(1, 7))}
        assert report.oldest_at == intent.timestamp
        assert report.bytes > 0
        assert {row.id for row in spooled_rows(folder)} == {row.id for row in rows}
        store.apply(Changes(dropped_rows=[row.id for row in rows]))  # the owner noticed nothing
    assert only(read_spools(folder.parent)).rows == 0


def test_after_a_clean_end_nothing_is_made(folder):
    with store_in(folder) as store:
        store.apply(Changes(rows=list(numbered(3))))
    before = bytes_in(folder)

    report = only(read_spools(folder.parent))

    assert bytes_in(folder) == before
    assert (report.rows, report.is_owned, report.owner) == (3, False, None)


def test_after_a_kill_the_log_is_read_and_left_as_it_is(folder):
    killed_with(folder, 4)
    before = bytes_in(folder)
    assert "spool.db-wal" in before

    report = only(read_spools(folder.parent))

    assert bytes_in(folder) == before
    assert (report.rows, report.trouble) == (4, None)


def test_a_log_without_its_index_is_read_elsewhere(folder, tmp_path):
    killed_with(folder, 4)
    (folder / "spool.db-shm").unlink()
    before = bytes_in(folder)

    report = only(read_spools(folder.parent))

    assert bytes_in(folder) == before
    assert (report.rows, report.trouble) == (4, None)


def test_a_file_that_is_being_made_has_no_rows_yet(folder):
    (folder / "spool.db").touch()

    report = only(read_spools(folder.parent))

    assert (report.rows, report.trouble) == (0, None)


@pytest.mark.parametrize("content", [b"Dear friend, " * 1000, b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_that_is_none_is_told_not_raised(folder, content):
    (folder / "spool.db").write_bytes(content)

    report = only(read_spools(folder.parent))

    assert report.trouble and report.rows == 0
    assert bytes_in(folder) == {"spool.db": content}


def test_rows_that_fail_their_checksum_are_counted_apart(folder):
    with store_in(folder) as store:
        store.apply(Changes(rows=list(numbered(3))))
    with closing(sqlite3.connect(folder / "spool.db", isolation_level=None)) as connection:
        connection.execute("UPDATE rows SET crc = crc + 1 WHERE rowid = 2")

    report = only(read_spools(folder.parent))

    assert (report.rows, report.damaged) == (2, 1)
    assert report.numbers == {BOOT: Ranges.of([1, 3])}


def test_files_that_were_set_aside_are_named(folder):
    for name in ("spool.db.corrupt-17", "spool.db.corrupt-17-wal"):
        (folder / name).write_bytes(b"x")

    assert [path.name for path in only(read_spools(folder.parent)).corrupt] == ["spool.db.corrupt-17"]


def test_every_instance_has_a_report_of_its_own(folder):
    with store_in(folder) as store:
        store.apply(Changes(rows=list(numbered(3))))
    shutil.copytree(folder, folder.with_name("instance-2"))
    (folder.parent / "letters").mkdir()

    assert [(each.folder.name, each.rows) for each in read_spools(folder.parent)] == [
        ("instance-1", 3),
        ("instance-2", 3),
    ]


# --- letters


def test_letters_are_read_and_the_boots_beside_them(folder):
    boot = Boot(id=BOOT, started_at=MOMENT, closed_at=MOMENT, last_seq=9, abandoned="3-4")
    store = LetterStore(folder / "letters.db")
    letters = [DeadLetter(row=row, sink="x", code="y", message="", attempts=1) for row in numbered(2)]
    store.add(letters, max_bytes=2**30)
    store.keep_boot(boot)

    with held(folder):
        beside = only(read_letters(folder.parent))
    store.close()
    behind = only(read_letters(folder.parent))

    assert (beside.is_owned, behind.is_owned) == (True, False)
    for report in (beside, behind):
        assert (report.rows, report.numbers, report.trouble) == (2, {BOOT: Ranges.of([1, 2])}, None)
        assert report.boots == (boot,)


# --- an audit beside an owner


async def test_the_gaps_of_a_boot_that_has_the_lock_are_under_way(folder, tmp_path):
    rows = numbered(6)
    async with MemorySink.open(MemoryOptions()) as sink:
        await sink.write(Batch.of((rows[0], rows[5])))
        await sink.record_boot(Boot(id=BOOT, started_at=MOMENT))
        with store_in(folder) as store:
            store.apply(Changes(rows=[rows[2]]))
            store.sign(str(BOOT))

            with held(folder):
                (running,) = (await audit_usage(sink, folder.parent, tmp_path / "none", None)).boots
            (gone,) = (await audit_usage(sink, folder.parent, tmp_path / "none", None)).boots

    assert (running.state, str(running.under_way), str(running.missing)) == ("running", "2,4-5", "")
    assert (gone.state, str(gone.missing), str(gone.spooled)) == ("never_closed", "2,4-5", "3")


async def test_a_row_that_goes_from_the_file_to_the_sink_meanwhile_is_not_missing(folder, tmp_path):
    rows = numbered(3)

    class Moving(MemorySink):
        """The last row leaves its file before the file is read, and arrives after the rows were."""

        async def read_runs(self):
            runs = await super().read_runs()
            await self.write(Batch.of(rows))
            return runs

    async with Moving.open(MemoryOptions()) as sink:
        await sink.write(Batch.of(rows[:2]))
        await sink.record_boot(Boot(id=BOOT, started_at=MOMENT, closed_at=MOMENT, last_seq=3))

        (boot,) = (await audit_usage(sink, tmp_path / "none", tmp_path / "none", None)).boots

    assert boot.is_whole and len(boot.stored) == 3
