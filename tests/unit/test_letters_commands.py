"""``tallygate logs dead-letters`` and ``logs replay``: what they print, what they move, and how they end."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from uuid_utils.compat import uuid7

from backends import DeadLetterFile, to_json
from backends.dead_letters import DeadLetter
from backends.record import Batch, stamped
from backends.sqlite import SqliteOptions, SqliteSink
from backends.testing import make_full_record, make_record
from gateway import cli
from gateway.commands import dead_letters

ROOT = Path("data/spool-dead")


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """In an empty folder, with the defaults, and without taking over this process's logging."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_MASTER_KEY", "tg-test")
    monkeypatch.delenv("LOG_WRITER_STRATEGY", raising=False)
    monkeypatch.delenv("GATEWAY_CONFIG", raising=False)
    monkeypatch.setattr(cli, "set_up_logging", lambda: None)


@pytest.fixture
def run(capfdbinary):
    """Runs a command; its exit status, what it printed and what it complained of."""

    def go(*arguments):
        status = cli.main(["logs", *arguments])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return go


@pytest.fixture
def listed(run):
    """The letters as ``dead-letters --format jsonl`` has them."""

    def go():
        status, out, err = run("dead-letters", "--format", "jsonl")
        assert (status, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    return go


def numbered(row):
    return stamped(row, row.id, uuid7(), 1)


def bury(*rows, code="23514", message="not storable"):
    """Letters of an instance that runs no more."""
    with closing(DeadLetterFile(ROOT)) as file:
        file.open()
        file.add([DeadLetter(row=row, sink="sqlite", code=code, message=message, attempts=1) for row in rows])


def make_sink():
    assert cli.main(["migrate"]) == 0


def change(sql):
    with closing(sqlite3.connect("data/usage.db", isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


def refuse(user):
    change(
        "CREATE TRIGGER refuse BEFORE INSERT ON usage_logs "
        f"WHEN NEW.user_id = '{user}' BEGIN SELECT RAISE(ABORT, 'no'); END"
    )


def stored():
    return {row_id for (row_id,) in change("SELECT id FROM usage_logs")}


@pytest.fixture
def sink(run, capfdbinary):
    make_sink()
    capfdbinary.readouterr()


# --- dead-letters


def test_where_nothing_was_refused_there_is_only_the_head(run):
    status, out, err = run("dead-letters")

    assert (status, err) == (0, "")
    assert out.split() == ["at", "row_id", "sink", "code", "attempts", "is_marked", "message"]
    assert not Path("data").exists(), "looking makes no file"


def test_a_table_has_a_line_for_each_letter(run):
    row = numbered(make_record())
    bury(row, message="the\x1b[2J\nserver's words")

    status, out, err = run("dead-letters")

    _, line = out.splitlines()
    assert (status, err) == (0, "")
    assert line.split()[1:6] == [str(row.id), "sqlite", "23514", "1", "no"]
    assert line.endswith("the\ufffd[2J\ufffdserver's words")


def test_json_and_jsonl_have_all_of_it_with_the_row(run, listed):
    row = numbered(make_full_record(user_id="漢字"))
    bury(row)

    (line,) = listed()
    (each,) = json.loads(run("dead-letters", "--format", "json")[1])["data"]

    assert line == each
    assert line["at"].endswith("Z")
    assert {key: line[key] for key in line if key != "at"} == {
        "row_id": str(row.id),
        "boot_id": str(row.boot_id),
        "seq": 1,
        "sink": "sqlite",
        "code": "23514",
        "message": "not storable",
        "attempts": 1,
        "is_marked": False,
        "row": to_json(row),
    }


def test_many_letters_are_one_table(run, listed, monkeypatch):
    monkeypatch.setattr(dead_letters, "PAGE_LETTERS", 3)
    bury(*(numbered(make_record()) for _ in range(7)))

    assert len(run("dead-letters")[1].splitlines()) == 8
    assert len(listed()) == 7


def test_letters_are_read_beside_their_owner(listed):
    with closing(DeadLetterFile(ROOT)) as file:
        file.open()
        file.add([DeadLetter(row=make_record(), sink="s", code="c", message="", attempts=1)])

        assert len(listed()) == 1


def test_a_file_that_is_no_file_of_letters_is_one_line(run):
    (ROOT / "instance-1").mkdir(parents=True)
    (ROOT / "instance-1" / "letters.db").write_bytes(b"Dear friend, " * 1000)

    for command in (("dead-letters",), ("replay", "--all")):
        status, out, err = run(*command)

        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "letters.db: SQLITE_NOTADB" in err


# --- replay


def test_letters_without_an_owner_are_delivered_and_once_only(run, listed, sink):
    rows = [numbered(make_record()) for _ in range(3)]
    bury(*rows)

    status, out, err = run("replay", "--all")

    assert (status, err) == (0, "")
    assert out == "3 dead letters marked to be sent again\n3 dead letters delivered\n"
    assert stored() == {str(row.id) for row in rows}
    assert listed() == []
    assert run("replay", "--all") == (0, "0 dead letters marked to be sent again\n", "")
    assert len(stored()) == 3


def test_of_many_only_those_that_are_named_are_sent(run, listed, sink):
    rows = [numbered(make_record()) for _ in range(4)]
    bury(*rows[:3])
    bury(rows[3], code="22003")

    assert run("replay", "--id", str(rows[0].id), "--id", str(rows[2].id))[0] == 0
    assert stored() == {str(rows[0].id), str(rows[2].id)}

    assert run("replay", "--code", "22003")[0] == 0
    assert stored() == {str(rows[0].id), str(rows[2].id), str(rows[3].id)}
    assert [each["row_id"] for each in listed()] == [str(rows[1].id)]


def test_rows_that_are_refused_again_stay_and_the_others_go(run, listed, sink):
    rows = [numbered(make_record(user_id="bad" if n in (5, 30) else "ann")) for n in range(40)]
    bury(*rows)
    refuse("bad")

    status, out, err = run("replay", "--all")

    assert (status, err) == (1, "")
    assert out.splitlines()[1:] == [
        "38 dead letters delivered",
        "2 dead letters refused again: SQLITE_CONSTRAINT_TRIGGER",
    ]
    assert len(stored()) == 38
    assert [(each["row_id"], each["attempts"], each["is_marked"]) for each in listed()] == [
        (str(rows[5].id), 2, False),
        (str(rows[30].id), 2, False),
    ]
    change("DROP TRIGGER refuse")
    assert run("replay", "--all")[0] == 0
    assert (len(stored()), listed()) == (40, [])


def test_a_sink_that_cannot_take_them_leaves_them_marked_for_the_next_start(run, listed):
    bury(numbered(make_record()))

    status, out, err = run("replay", "--all")

    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("sinks.sqlite: schema_missing")
    assert "0 dead letters delivered" in out
    assert [each["is_marked"] for each in listed()] == [True]


def test_a_replay_that_died_after_the_write_stores_nothing_twice(run, listed, sink):
    rows = [numbered(make_record()) for _ in range(2)]
    bury(*rows)

    async def write():
        async with SqliteSink.open(SqliteOptions()) as opened:
            await opened.write(Batch.of((rows[0],)))

    asyncio.run(write())

    assert run("replay", "--all")[0] == 0
    assert (len(stored()), listed()) == (2, [])


def test_letters_whose_owner_runs_are_marked_and_left_to_it(run, listed):
    with closing(DeadLetterFile(ROOT)) as file:
        file.open()
        row = make_record()
        file.add([DeadLetter(row=row, sink="s", code="c", message="", attempts=1)])

        status, out, err = run("replay", "--all")

        assert (status, err) == (0, "")
        assert out == "1 dead letter marked to be sent again\n1 dead letter left to the running gateway\n"
        assert [each["is_marked"] for each in listed()] == [True]
        batch = file.marked()
        assert batch is not None and batch.rows == (row,)


def test_noop_has_nowhere_to_send_them(run, monkeypatch):
    bury(numbered(make_record()))
    monkeypatch.setenv("LOG_WRITER_STRATEGY", "noop")

    status, _, err = run("replay", "--all")

    assert (status, err) == (2, "log_writer_strategy: noop keeps no rows\n")


@pytest.mark.parametrize("arguments", [(), ("--all", "--code", "c"), ("--id", "seven")])
def test_it_has_to_be_said_which(run, arguments):
    with pytest.raises(SystemExit, match="2"):
        run("replay", *arguments)
