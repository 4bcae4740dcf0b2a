"""The bridge in front of ClickHouse's engine, where a mistake of its own would make other tests lie."""

from __future__ import annotations

import socket
from urllib.error import HTTPError

import pytest
from servers import base
from servers.clickhouse_database import OwnDatabase


@pytest.fixture(autouse=True)
def _bridge_of_ours(clickhouse: OwnDatabase) -> None:
    base.need_ours(clickhouse.server)
    clickhouse.run("CREATE TABLE t (n Int64) ENGINE = MergeTree ORDER BY n")


def count(clickhouse: OwnDatabase) -> int:
    return int(clickhouse.query("SELECT count() AS n FROM t")[0]["n"])


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT * FROM nowhere", 60),
        ("SELEC 1 FROM t", 62),
        ("SELECT throwIf(1)", 395),
        ("SELECT sleep(3)", 159),
    ],
)
def test_an_error_comes_with_its_number(clickhouse: OwnDatabase, sql: str, code: int) -> None:
    with pytest.raises(HTTPError) as caught:
        clickhouse.server.run(sql, database=clickhouse.name, max_execution_time="1")

    with caught.value as answer:
        assert answer.headers["X-ClickHouse-Exception-Code"] == str(code)
        assert answer.read().startswith(f"Code: {code}. DB::Exception: ".encode())


def test_an_insert_that_fails_at_its_end_is_an_error(clickhouse: OwnDatabase) -> None:
    clickhouse.run("SYSTEM STOP MERGES t")
    for n in range(2):
        clickhouse.run(f"INSERT INTO t FORMAT CSV\n{n}\n")
    clickhouse.run("ALTER TABLE t MODIFY SETTING parts_to_throw_insert = 1")

    with pytest.raises(HTTPError) as caught:
        clickhouse.run("INSERT INTO t FORMAT CSV\n3\n")

    with caught.value as answer:
        assert answer.headers["X-ClickHouse-Exception-Code"] == "252"
    assert count(clickhouse) == 2


def test_a_setting_holds_for_its_own_request_alone(clickhouse: OwnDatabase) -> None:
    sql = "SELECT getSetting('max_threads') AS n"

    told = clickhouse.server.run(sql, max_threads="7")
    later = clickhouse.server.run(sql)

    assert told == "7\n"
    assert later != told


def test_half_a_request_runs_nothing(clickhouse: OwnDatabase) -> None:
    server = clickhouse.server
    for head in ("Content-Length: 5000", "Transfer-Encoding: chunked"):
        with socket.create_connection((server.host, server.port), timeout=30) as sock:
            sock.sendall(
                f"POST /?database={clickhouse.name}&user=default HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n"
                "1f\r\nINSERT INTO t FORMAT CSV\n1\n2\n3\n\r\n".encode()
            )
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1000) == b""

    assert count(clickhouse) == 0


def test_what_was_answered_outlives_a_kill(clickhouse: OwnDatabase) -> None:
    clickhouse.run("INSERT INTO t FORMAT CSV\n1\n2\n")

    clickhouse.server.restart()

    assert count(clickhouse) == 2
