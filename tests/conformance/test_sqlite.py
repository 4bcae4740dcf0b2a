"""The embedded default: the exported suite, and what only a file can suffer."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

import backends
from backends.errors import SinkBatchRejected, SinkFatal, SinkRetryable
from backends.record import COLUMNS, Boot, UsageRecord
from backends.sink import Committed
from backends.sqlite import SqliteOptions, SqliteSink
from backends.testing import SinkConformance, make_batch
from backends.usage_query import SummaryQuery, UsageQuery

SHORT_S = 0.05
LETTER = "Dear friend, " * 200


class TestSqlite(SinkConformance):
    sink_cls = SqliteSink
    sink_name = "sqlite"
    fault_modes = frozenset({"down"})

    @pytest.fixture(autouse=True)
    def _own_file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "new folder" / "usage.db"

    def make_options(self) -> SqliteOptions:
        return SqliteOptions(path=self.path)

    async def rows_in_sink(self) -> Sequence[UsageRecord]:
        return read_rows(self.path)

    async def boots_in_sink(self) -> Sequence[Boot]:
        return [_boot(row) for row in query(self.path, "SELECT * FROM usage_boots")]

    @asynccontextmanager
    async def fault(self, mode: str) -> AsyncIterator[None]:
        assert mode == "down"
        with locked(self.path):
            yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "usage.db"


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    """A file that somebody would miss."""
    path = tmp_path / "letter.txt"
    path.write_text(LETTER)
    return path


def is_letter(path: Path) -> bool:
    return path.read_text() == LETTER


# --- opening


async def test_opening_touches_no_file(path: Path) -> None:
    async with SqliteSink.open(SqliteOptions(path=path)):
        assert not path.parent.exists()


async def test_a_relative_path_is_meant_from_where_the_sink_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    async with SqliteSink.open(SqliteOptions()) as sink:
        monkeypatch.chdir(tmp_path)
        await sink.write(make_batch(1))

    assert (tmp_path / "here" / "data" / "usage.db").is_file()


@pytest.mark.parametrize("text", ["", ".", ":memory:", "file:usage.db?mode=memory"])
def test_a_path_that_is_no_file_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="path of a file"):
        SqliteOptions.model_validate({"path": text})


async def test_a_folder_that_cannot_be_made_is_tried_again(path: Path) -> None:
    path.parent.touch()  # a file where the folder should be
    batch = make_batch(2)

    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        with pytest.raises(SinkRetryable) as caught:
            await sink.write(batch)
        path.parent.unlink()

        assert await sink.write(batch) == Committed(2)
    assert not caught.value.ambiguous


async def test_a_file_that_is_no_database_is_fatal_and_left_alone(letter: Path) -> None:
    with pytest.raises(SinkFatal) as caught:
        await _write(letter, 1)

    assert caught.value.code == "SQLITE_NOTADB"
    assert is_letter(letter)


# --- schema


async def test_a_file_of_a_newer_program_is_fatal(path: Path) -> None:
    await _write(path, 2)
    change(path, "PRAGMA user_version = 2")

    with pytest.raises(SinkFatal, match="schema 2, this program knows 1"):
        await _write(path, 1)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE usage_logs DROP COLUMN tags",
        "ALTER TABLE usage_logs ADD COLUMN extra TEXT",
        "ALTER TABLE usage_logs RENAME COLUMN cost TO price",
    ],
)
async def test_a_table_with_other_columns_is_fatal(path: Path, statement: str) -> None:
    await _write(path, 2)
    change(path, statement)

    with pytest.raises(SinkFatal) as caught:
        await _write(path, 1)

    assert caught.value.code == "schema_differs"


async def test_migrating_a_file_of_a_newer_program_or_with_other_columns_is_fatal(path: Path) -> None:
    await _write(path, 2)
    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        change(path, "ALTER TABLE usage_logs ADD COLUMN extra TEXT")
        with pytest.raises(SinkFatal, match="extra") as differs:
            await sink.migrate()
        change(path, "PRAGMA user_version = 2")
        with pytest.raises(SinkFatal) as newer:
            await sink.migrate()

    assert (differs.value.code, newer.value.code) == ("schema_differs", "schema_newer")
    assert len(query(path, "SELECT id FROM usage_logs")) == 2


async def test_told_not_to_migrate_it_makes_neither_file_nor_table(path: Path) -> None:
    async with SqliteSink.open(SqliteOptions(path=path, migrate=False)) as sink:
        with pytest.raises(SinkFatal, match="no file"):
            await sink.write(make_batch(1))
        assert list(path.parent.iterdir()) == []
        path.parent.joinpath(path.name).touch()
        with pytest.raises(SinkFatal, match="no schema"):
            await sink.write(make_batch(1))

    assert query(path, "SELECT name FROM sqlite_master") == []


async def test_many_processes_migrate_a_new_file_at_once(path: Path) -> None:
    processes = [_start(MIGRATE, path) for _ in range(6)]

    answers = [process.communicate(timeout=60)[0].strip() for process in processes]

    assert answers == ["done"] * 6
    assert query(path, "PRAGMA user_version")[0]["user_version"] == 1


async def test_a_table_of_somebody_else_is_fatal_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    change(path, "CREATE TABLE usage_logs (id INTEGER PRIMARY KEY, note TEXT)")

    with pytest.raises(SinkFatal):
        await _write(path, 1)

    tables = query(path, "SELECT name FROM sqlite_master WHERE type = 'table'")
    assert [row["name"] for row in tables] == ["usage_logs"]
    assert query(path, "PRAGMA user_version")[0]["user_version"] == 0


async def test_a_table_that_is_dropped_while_we_run_is_fatal_until_it_is_back(path: Path) -> None:
    batch = make_batch(2)

    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        await sink.write(batch)
        change(path, "ALTER TABLE usage_logs RENAME TO elsewhere")
        with pytest.raises(SinkFatal):
            await sink.write(batch)
        change(path, "ALTER TABLE elsewhere RENAME TO usage_logs")

        assert await sink.write(batch) == Committed(0, 2)


async def test_many_processes_start_on_a_new_file_at_once(path: Path) -> None:
    processes = [_start(WRITE_FIVE, path) for _ in range(6)]

    answers = [process.communicate(timeout=60)[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0] * 6
    ids = [row_id for answer in answers for row_id in answer]
    assert len(ids) == 30
    assert sorted(str(row.id) for row in read_rows(path)) == sorted(ids)


# --- durability


async def test_rows_are_kept_when_the_process_is_killed(path: Path) -> None:
    promised: set[str] = set()

    for lines in (1, 5, 20, 40):
        process = _start(WRITE_FOR_EVER, path)
        assert process.stdout
        promised |= {process.stdout.readline().strip() for _ in range(lines)}
        process.kill()
        rest, _ = process.communicate(timeout=60)
        promised |= {line for line in rest.splitlines() if len(line) == 36}

    found = [str(row.id) for row in read_rows(path)]
    assert promised <= set(found)
    assert len(found) == len(set(found))
    assert query(path, "PRAGMA integrity_check")[0]["integrity_check"] == "ok"


def test_a_full_disk_is_tried_again_and_loses_nothing(path: Path) -> None:
    process = _start(FILL_DISK, path)

    answer, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    full, healed = answer.split()
    assert full in ("SQLITE_FULL", "SQLITE_IOERR_WRITE")
    assert healed == "500/0"
    assert len(read_rows(path)) == 501


@pytest.mark.parametrize(
    "wrong", [{"request_id": UUID(int=1)}, {"latency_ms": Decimal(1)}, {"tags": {}}, {"id": None}]
)
async def test_a_value_that_its_column_has_no_kind_for_is_refused_and_not_bent(
    path: Path, wrong: dict[str, Any]
) -> None:
    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        with pytest.raises(SinkBatchRejected):
            await sink.write(make_batch(2, **wrong))

        assert await sink.write(make_batch(2)) == Committed(2)
    assert len(read_rows(path)) == 2


# --- the file goes away


async def test_a_folder_that_is_gone_is_retried_until_it_is_back(path: Path) -> None:
    first, second = make_batch(3), make_batch(3)
    aside = path.parent.with_name("aside")

    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        await sink.write(first)
        path.parent.rename(aside)
        for call in (sink.write(second), sink.ping(), sink.read_usage(UsageQuery())):
            with pytest.raises(SinkRetryable) as caught:
                await call
            assert (caught.value.code, caught.value.ambiguous) == ("folder_gone", False)
        assert not path.parent.exists()
        aside.rename(path.parent)

        assert await sink.write(second) == Committed(3)
    assert {row.id for row in read_rows(path)} == {row.id for row in first.rows + second.rows}


async def test_no_row_is_acknowledged_into_a_deleted_file(path: Path) -> None:
    first, second = make_batch(3), make_batch(3)

    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        await sink.write(first)
        for file in path.parent.iterdir():
            file.unlink()

        assert await sink.write(second) == Committed(3)
    assert {row.id for row in read_rows(path)} == {row.id for row in second.rows}


async def test_a_file_that_moves_under_a_write_leaves_it_unknown(path: Path) -> None:
    class MovesTheFile(Decimal):
        def __format__(self, *spec: Any) -> str:
            path.rename(path.with_name("moved"))
            return super().__format__(*spec)

    moving, batch = make_batch(1, cost=MovesTheFile(1)), make_batch(3)

    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        await sink.ping()
        with pytest.raises(SinkRetryable) as caught:
            await sink.write(moving)

        assert (caught.value.code, caught.value.ambiguous) == ("file_gone", True)
        assert await sink.write(batch) == Committed(3)
    assert {row.id for row in read_rows(path)} == {row.id for row in batch.rows}


async def test_a_write_ahead_log_deleted_under_us_loses_no_row(path: Path) -> None:
    first, second = make_batch(3), make_batch(3)

    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        await sink.write(first)
        path.with_name("usage.db-wal").unlink()
        await sink.write(second)

        assert {row.id for row in read_rows(path)} == {row.id for row in first.rows + second.rows}


# --- locks, cancelling, ending


async def test_rows_can_be_read_while_another_process_writes(path: Path) -> None:
    async with SqliteSink.open(SqliteOptions(path=path, busy_timeout_s=SHORT_S)) as sink:
        await sink.write(make_batch(3))
        with locked(path):
            page = await sink.read_usage(UsageQuery())

    assert len(page.rows) == 3


async def test_a_lock_that_goes_in_time_is_waited_for(path: Path) -> None:
    async with SqliteSink.open(SqliteOptions(path=path, busy_timeout_s=30)) as sink:
        await sink.ping()
        with locked(path):
            write = asyncio.ensure_future(sink.write(make_batch(3)))
            await asyncio.sleep(0)

        assert await write == Committed(3)


async def test_a_write_that_is_cancelled_before_its_turn_never_happens(path: Path) -> None:
    first, second = make_batch(2), make_batch(2)

    async with SqliteSink.open(SqliteOptions(path=path, busy_timeout_s=30)) as sink:
        await sink.ping()
        with locked(path):
            running = asyncio.ensure_future(sink.write(first))
            waiting = asyncio.ensure_future(sink.write(second))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
        await running

    assert {row.id for row in read_rows(path)} == {row.id for row in first.rows}


async def test_abort_from_another_thread_refuses_what_waits(path: Path) -> None:
    async with SqliteSink.open(SqliteOptions(path=path, busy_timeout_s=SHORT_S)) as sink:
        await sink.ping()
        with locked(path):
            writes = [asyncio.ensure_future(sink.write(make_batch(2))) for _ in range(3)]
            await asyncio.sleep(0)
            for thread in [threading.Thread(target=sink.abort) for _ in range(2)]:
                thread.start()
                thread.join()
            await asyncio.wait(writes)

    errors = [write.exception() for write in writes]
    assert all(isinstance(error, SinkRetryable) for error in errors)
    assert read_rows(path) == []


async def test_closing_does_not_wait_for_a_lock_longer_than_its_timeout(path: Path) -> None:
    with locked(path):
        async with asyncio.timeout(30):
            async with SqliteSink.open(SqliteOptions(path=path, busy_timeout_s=SHORT_S)) as sink:
                write = asyncio.ensure_future(sink.write(make_batch(2)))
                await asyncio.sleep(0)
        await asyncio.wait({write})

    assert isinstance(write.exception(), SinkRetryable)


async def test_nothing_is_left_beside_the_file_after_closing(path: Path) -> None:
    """Or a copy of the file alone would lack rows. Often, since it is a matter of moments which connection
    closes last."""
    for _ in range(50):
        async with SqliteSink.open(SqliteOptions(path=path)) as sink:
            await sink.write(make_batch(1))
            await sink.read_usage(UsageQuery())

        assert [file.name for file in path.parent.iterdir()] == ["usage.db"]


async def test_a_filter_that_is_no_column_is_an_error_of_the_caller(path: Path) -> None:
    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        with pytest.raises(ValueError, match="cost"):
            await sink.read_usage(UsageQuery(filters=(("cost = 1 OR cost", "1"),)))


@pytest.mark.parametrize("asked", [{"group_by": ("cost",)}, {"filters": (("1 = 1 --", "x"),)}])
async def test_a_grouping_that_is_no_column_is_an_error_of_the_caller(path: Path, asked: Any) -> None:
    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        with pytest.raises(ValueError, match="usage rows cannot be"):
            await sink.summarise_usage(SummaryQuery(**asked))


async def test_a_summary_of_a_time_that_somebody_edited_is_fatal(path: Path) -> None:
    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        await sink.write(make_batch(1))
        change(path, "UPDATE usage_logs SET timestamp = 'yesterday'")

        with pytest.raises(SinkFatal, match="changed by another program"):
            await sink.summarise_usage(SummaryQuery(group_by=("day",)))
        assert (await sink.summarise_usage(SummaryQuery()))[0].calls == 1


async def test_a_summary_is_of_one_moment_while_another_process_writes(path: Path) -> None:
    async with SqliteSink.open(SqliteOptions(path=path, busy_timeout_s=SHORT_S)) as sink:
        await sink.write(make_batch(3))
        with locked(path):
            (total,) = await sink.summarise_usage(SummaryQuery())

    assert total.calls == 3


async def test_a_row_that_somebody_edited_is_named(path: Path) -> None:
    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        batch = make_batch(1)
        await sink.write(batch)
        change(path, "UPDATE usage_logs SET timestamp = 'yesterday'")

        with pytest.raises(SinkFatal, match=str(batch.rows[0].id)):
            await sink.read_usage(UsageQuery())


# --- around the sink


def query(path: Path, sql: str) -> list[sqlite3.Row]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(sql).fetchall()


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql)


def read_rows(path: Path) -> list[UsageRecord]:
    has_table = query(path, "SELECT 1 FROM sqlite_master WHERE name = 'usage_logs'")
    return [_record(row) for row in query(path, "SELECT * FROM usage_logs")] if has_table else []


async def _write(path: Path, count: int) -> None:
    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        await sink.write(make_batch(count))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program is in the middle of a write."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def _record(row: sqlite3.Row) -> UsageRecord:
    values: dict[str, Any] = {name: row[name] for name in COLUMNS}
    return UsageRecord(
        **{
            **values,
            "id": UUID(row["id"]),
            "boot_id": UUID(row["boot_id"]) if row["boot_id"] else None,
            "timestamp": datetime.fromisoformat(row["timestamp"]),
            "stream": {0: False, 1: True}[row["stream"]],
            "cost": Decimal(row["cost"]) if row["cost"] is not None else None,
        }
    )


def _boot(row: sqlite3.Row) -> Boot:
    return Boot(
        id=UUID(row["boot_id"]),
        started_at=datetime.fromisoformat(row["started_at"]),
        closed_at=datetime.fromisoformat(row["closed_at"]) if row["closed_at"] else None,
        last_seq=row["last_seq"],
        abandoned=row["abandoned"],
    )


# --- in a process of its own

HEAD = """
import asyncio, os, resource, sys
from backends.errors import SinkRetryable
from backends.sqlite import SqliteOptions, SqliteSink
from backends.testing import make_batch

async def main(path):
    async with SqliteSink.open(SqliteOptions(path=path, busy_timeout_s=30)) as sink:
        await work(sink, path)
"""

WRITE_FIVE = """
async def work(sink, path):
    batch = make_batch(5)
    await sink.write(batch)
    print(*(row.id for row in batch.rows))
"""

WRITE_FOR_EVER = """
async def work(sink, path):
    while True:
        batch = make_batch(3)
        await sink.write(batch)
        for row in batch.rows:
            print(row.id, flush=True)
"""

MIGRATE = """
async def work(sink, path):
    await sink.migrate()
    print("done")
"""

FILL_DISK = """
async def work(sink, path):
    await sink.write(make_batch(1))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path + "-wal") + 4096, hard))
    batch = make_batch(500)
    try:
        await sink.write(batch)
    except SinkRetryable as error:
        print(error.code)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    answer = await sink.write(batch)
    print(f"{answer.new}/{answer.duplicates}")
"""


def _start(script: str, path: Path) -> subprocess.Popen[str]:
    program = f"{HEAD}\n{script}\nasyncio.run(main(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(backends.__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
