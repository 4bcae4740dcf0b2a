"""``tallygate migrate`` and ``tallygate logs``: what they print, and how they end."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from uuid_utils.compat import uuid7

import backends
from backends import to_json
from backends.record import COLUMNS, Batch, Boot
from backends.sqlite import SqliteOptions, SqliteSink
from backends.testing import MOMENT, make_full_record, make_record, make_records
from gateway import cli, usage_text

STORE_MIGRATED = "store: the schema is up to date\n"


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
        status = cli.main(arguments)
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return go


def store(*rows, path="data/usage.db"):
    async def write():
        async with SqliteSink.open(SqliteOptions(path=path)) as sink:
            await sink.write(Batch.of(rows))

    asyncio.run(write())


def change(sql, path="data/usage.db"):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


# --- migrate


def test_migrate_makes_the_schema_and_may_be_repeated(run):
    for _ in range(2):
        assert run("migrate") == (0, f"sinks.sqlite: the schema is up to date\n{STORE_MIGRATED}", "")

    assert change("SELECT count(*) FROM usage_logs") == [(0,)]


def test_migrate_heeds_the_file_even_if_it_says_that_nobody_else_may(run, tmp_path):
    config = tmp_path / "gateway.yml"
    config.write_text(
        "sinks: {sqlite: {path: ./mine.db, migrate: false}}\n"
        "store: {url: 'sqlite:///./keys.db', migrate: false}\n"
    )

    assert run("migrate", "--config", str(config))[0] == 0

    assert change("SELECT count(*) FROM usage_boots", "mine.db") == [(0,)]
    assert not Path("data").exists()


def test_migrate_ends_with_2_and_one_line_for_a_newer_schema(run):
    store(make_record())
    change("PRAGMA user_version = 9")

    status, out, err = run("migrate")

    assert (status, out) == (2, STORE_MIGRATED)
    assert err == "sinks.sqlite: schema_newer: the file has schema 9, this program knows 1\n"


def test_migrate_ends_with_2_and_one_line_for_a_file_that_is_no_database(run):
    Path("data").mkdir()
    Path("data/usage.db").write_text("Dear friend, " * 200)

    status, out, err = run("migrate")

    assert (status, out, err.count("\n")) == (2, STORE_MIGRATED, 1)
    assert err.startswith("sinks.sqlite: SQLITE_NOTADB")


def test_migrate_has_nothing_to_do_for_noop(run, monkeypatch):
    monkeypatch.setenv("LOG_WRITER_STRATEGY", "noop")

    assert run("migrate") == (0, f"nothing to migrate: noop keeps no rows\n{STORE_MIGRATED}", "")


@pytest.mark.parametrize("command", [("migrate",), ("logs", "list"), ("logs", "summary")])
def test_a_wrong_configuration_is_one_line(run, command, tmp_path):
    config = tmp_path / "gateway.yml"
    config.write_text("sinks: {sqlite: {pth: ./mine.db}}\n")

    status, out, err = run(*command, "--config", str(config))

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "did you mean path?" in err


# --- logs list


def test_a_table_has_the_newest_rows_and_the_names_of_its_columns(run):
    older, newer = make_records(2)
    store(older, newer)

    status, out, err = run("logs", "list")

    head, first, second = out.splitlines()
    assert (status, err) == (0, "")
    assert head.split() == [
        "timestamp",
        "status",
        "user_id",
        "provider",
        "model",
        "total_tokens",
        "cost",
        "latency_ms",
        "request_id",
    ]
    assert first.split()[-1] == newer.request_id
    assert second.split()[1:] == [
        "success",
        "-",
        "openai",
        "gpt-4o-mini",
        "46",
        "0.000022200",
        "812.5",
        older.request_id,
    ]


def test_a_table_shows_a_hundred_rows_unless_told_otherwise(run, monkeypatch):
    monkeypatch.setattr(usage_text, "PAGE_ROWS", 30)
    store(*make_records(130))

    assert len(run("logs", "list")[1].splitlines()) == 101
    assert len(run("logs", "list", "--limit", "7")[1].splitlines()) == 8
    assert len(run("logs", "list", "--limit", "1000")[1].splitlines()) == 131


def test_no_text_of_a_caller_reaches_the_terminal_as_a_command(run):
    store(make_record(user_id="\x1b[2J\r\nann\x07"))

    out = run("logs", "list")[1]

    assert len(out.splitlines()) == 2
    assert not {"\x1b", "\x07", "\r"} & set(out)


def test_csv_and_jsonl_have_every_row_and_column(run, monkeypatch):
    monkeypatch.setattr(usage_text, "PAGE_ROWS", 30)
    rows = [make_full_record(user_id="漢字"), *make_records(130)]
    store(*rows)

    head, *lines = csv.reader(io.StringIO(run("logs", "list", "--format", "csv")[1], newline=""))
    found = [json.loads(line) for line in run("logs", "list", "--format", "jsonl")[1].splitlines()]

    assert head == list(COLUMNS)
    assert {line[0] for line in lines} == {str(row.id) for row in rows}
    assert len(lines) == len(found) == 131
    assert to_json(rows[0]) in found


def test_json_is_a_page_as_the_api_has_it_and_its_cursor_leads_on(run):
    rows = make_records(5)
    store(*rows)

    first = json.loads(run("logs", "list", "--format", "json", "--limit", "2")[1])
    second = json.loads(run("logs", "list", "--format", "json", "--cursor", first["cursor"])[1])

    assert [each["id"] for each in first["data"] + second["data"]] == [str(row.id) for row in reversed(rows)]
    assert (first["has_more"], second["has_more"], second["cursor"]) == (True, False, None)


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("--user-id", "user_id", "ann"),
        ("--api-key-id", "api_key_id", "k1"),
        ("--provider", "provider", "local"),
        ("--model", "model", "m"),
        ("--endpoint", "endpoint", "/v1/embeddings"),
        ("--status", "status", "cancelled"),
        ("--request-id", "request_id", "mine"),
    ],
)
def test_each_filter_is_an_option(run, option, field, value):
    wanted = make_record(**{field: value})
    store(wanted, *make_records(3))

    out = run("logs", "list", option, value, "--format", "jsonl")[1]

    assert [json.loads(line)["id"] for line in out.splitlines()] == [str(wanted.id)]


def test_start_and_end_are_options(run):
    rows = make_records(4)
    store(*rows)
    start, end = (row.timestamp.isoformat() for row in (rows[1], rows[3]))

    out = run("logs", "list", "--start", start, "--end", end, "--format", "jsonl")[1]

    assert [json.loads(line)["id"] for line in out.splitlines()] == [str(rows[2].id), str(rows[1].id)]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("list", "--limit", "0"), "--limit"),
        (("list", "--limit", "2000", "--format", "json"), "--limit"),
        (("list", "--start", "yesterday"), "--start"),
        (("list", "--cursor", "x"), "--cursor"),
        (("summary", "--status", "fine"), "--status"),
        (("summary", "--group-by", "cost"), "--group-by"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(run, arguments, option):
    status, out, err = run("logs", *arguments)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{option}: ")


@pytest.mark.parametrize("command", ["list", "summary"])
def test_reading_makes_neither_file_nor_schema(run, command):
    status, out, err = run("logs", command)

    assert (status, out) == (2, "")
    assert err.startswith("sinks.sqlite: schema_missing: there is no file")
    assert err.endswith("run: tallygate migrate\n")
    assert not Path("data/usage.db").exists()


@pytest.mark.parametrize("command", ["list", "summary"])
def test_noop_has_no_rows_to_read(run, monkeypatch, command):
    monkeypatch.setenv("LOG_WRITER_STRATEGY", "noop")

    assert run("logs", command) == (2, "", "log_writer_strategy: noop keeps no rows\n")


def test_rows_are_read_while_a_gateway_has_the_file_open(run):
    async def beside():
        async with SqliteSink.open(SqliteOptions()) as sink:
            await sink.write(Batch.of(make_records(3)))
            return await asyncio.to_thread(run, "logs", "list", "--format", "jsonl")

    status, out, _ = asyncio.run(beside())

    assert (status, len(out.splitlines())) == (0, 3)


def test_a_reader_that_has_seen_enough_is_no_error():
    store(*make_records(3000))
    environment = {**os.environ, "PYTHONPATH": str(Path(backends.__file__).parent.parent)}
    command = [sys.executable, "-m", "gateway", "logs", "list", "--format", "jsonl"]

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        complaints = process.stderr.read()

    assert (process.returncode, complaints) == (0, b"")


# --- logs summary


def test_a_summary_is_a_table_with_a_line_for_each_group(run):
    store(*(make_record(user_id=user) for user in ("ann", "bob", "ann")), make_record(user_id=None))

    status, out, err = run("logs", "summary", "--group-by", "user_id")

    head, *lines = (line.split() for line in out.splitlines())
    assert (status, err) == (0, "")
    assert head[:3] == ["user_id", "calls", "errors"]
    assert [line[:2] for line in lines] == [["-", "1"], ["ann", "2"], ["bob", "1"]]
    assert lines[1][head.index("cost")] == "0.000044400"


def test_a_summary_as_json_is_what_the_api_answers(run):
    store(make_record(user_id="ann", model="m"), make_record(user_id="bob"))

    out = run("logs", "summary", "--group-by", "user_id,day", "--group-by", "model", "--format", "json")[1]

    answer = json.loads(out)
    assert answer["group_by"] == ["user_id", "day", "model"]
    assert [each["user_id"] for each in answer["data"]] == ["ann", "bob"]
    assert answer["data"][0]["day"] == "2026-01-02T00:00:00Z"


def test_a_summary_as_csv_has_a_head(run):
    store(make_record(user_id="ann"), make_record(user_id="bob"))

    out = run("logs", "summary", "--user-id", "ann", "--format", "csv")[1]

    head, line = csv.reader(io.StringIO(out, newline=""))
    assert (head[0], line[0], line[head.index("cost")]) == ("calls", "1", "0.000022200")


def test_a_summary_of_no_group_is_its_head_alone(run):
    store(make_record())

    (head,) = run("logs", "summary", "--user-id", "nobody", "--group-by", "model")[1].splitlines()

    assert head.split()[:3] == ["model", "calls", "errors"]


# --- logs audit, logs spool


def stored_by(boot, *numbers):
    async def write():
        async with SqliteSink.open(SqliteOptions(path="data/usage.db")) as sink:
            await sink.write(Batch.of(tuple(make_record(boot_id=boot.id, seq=n) for n in numbers)))
            await sink.record_boot(boot)

    asyncio.run(write())


def closed_boot(last_seq, abandoned=""):
    return Boot(id=uuid7(), started_at=MOMENT, closed_at=MOMENT, last_seq=last_seq, abandoned=abandoned)


def test_audit_ends_with_0_and_one_line_when_every_row_is_there(run):
    stored_by(closed_boot(3), 1, 2, 3)

    status, out, err = run("logs", "audit")

    assert (status, err) == (0, "")
    assert out == (
        "1 boots, 3 numbers: 3 stored, 0 spooled, 0 dead lettered, 0 abandoned, 0 under way, 0 retired,"
        " 0 missing, 0 repeated\n"
    )


def test_audit_ends_with_1_and_names_what_is_missing_and_what_was_abandoned(run):
    boot = closed_boot(9, abandoned="4-5")
    stored_by(boot, 1, 2, 6, 7)

    status, out, err = run("logs", "audit")

    assert (status, err) == (1, "")
    cells = [line.split() for line in out.splitlines()]
    assert cells[0] == ["boot_id", "started_at", "finding", "count", "numbers", "remark"]
    assert [each[2:] for each in cells[1:-1]] == [
        ["missing", "1", "3"],
        ["missing_tail", "2", "8-9", "closed", "with", "9"],
        ["abandoned", "2", "4-5"],
    ]
    assert {each[0] for each in cells[1:-1]} == {str(boot.id)}


def test_audit_names_the_rows_that_share_a_number_and_misses_none(run):
    stored_by(closed_boot(2), 1, 2, 2)

    status, out, _ = run("logs", "audit", "--format", "json")

    (finding,) = json.loads(out)["findings"]
    ids = {row for (row,) in change("SELECT id FROM usage_logs WHERE seq = 2")}
    assert (status, finding["finding"], finding["numbers"]) == (0, "repeated", "2")
    assert set(finding["remark"].split(", ")) == ids


def test_audit_tells_of_a_spool_that_it_cannot_read(run):
    stored_by(closed_boot(2), 1)
    spool = Path("data/spool/instance-1")
    spool.mkdir(parents=True)
    (spool / "spool.db").write_text("Dear friend, " * 200)

    status, _, err = run("logs", "audit")

    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("data/spool/instance-1: cannot be read (SQLITE_NOTADB")


def test_audit_cuts_a_long_list_of_gaps_in_the_table_alone(run):
    stored_by(closed_boot(100), *range(2, 101, 2))

    assert "1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31,33,35,37,39 and 30 more" in run("logs", "audit")[1]
    (finding,) = json.loads(run("logs", "audit", "--format", "json")[1])["findings"]
    assert finding["numbers"] == ",".join(str(n) for n in range(1, 100, 2))


def test_audit_ends_with_2_for_boots_that_somebody_edited(run):
    stored_by(closed_boot(2, abandoned="none"), 1, 2)

    status, out, err = run("logs", "audit")

    assert (status, out, err.count("\n")) == (2, "", 1)


def test_audit_ends_with_2_where_no_rows_are_kept(run, monkeypatch):
    monkeypatch.setenv("LOG_WRITER_STRATEGY", "noop")

    assert run("logs", "audit") == (2, "", "log_writer_strategy: noop keeps no rows\n")


def test_audit_changes_nothing(run):
    assert run("logs", "audit")[0] == 2

    assert not Path("data/spool").exists() and not Path("data/usage.db").exists()


def test_spool_says_that_there_is_none(run):
    assert run("logs", "spool") == (0, "no spool and no dead letters here\n", "")
    assert json.loads(run("logs", "spool", "--format", "json")[1]) == {"data": []}
