"""What each SQLSTATE means for a batch."""

from __future__ import annotations

import pytest

from backends.errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable
from backends.postgres_codes import server_error


@pytest.mark.parametrize("code", ["22P05", "22021", "22003", "23502", "23514", "54000"])
def test_rows_that_are_refused_for_good(code: str) -> None:
    error = server_error(code, "the value sk-secret is wrong")

    assert type(error) is SinkBatchRejected
    assert "sk-secret" not in str(error)


@pytest.mark.parametrize("code", ["28P01", "28000", "3D000", "3F000", "42P01", "42501", "42P10", "0A000"])
def test_what_a_person_has_to_mend(code: str) -> None:
    for is_connecting in (True, False):
        assert type(server_error(code, "", is_connecting=is_connecting)) is SinkFatal


@pytest.mark.parametrize("code", ["40001", "40P01", "53100", "53300", "55P03", "57014", "25006", "57P03"])
def test_a_statement_that_was_rolled_back_is_tried_again(code: str) -> None:
    assert _ambiguity(server_error(code, "")) is False


@pytest.mark.parametrize("code", ["08006", "08003", "57P01", "57P02", "58030", "XX000", "99999", None])
def test_whatever_else_may_have_stored_the_rows(code: str | None) -> None:
    assert _ambiguity(server_error(code, "")) is True
    assert _ambiguity(server_error(code, "", is_connecting=True)) is False


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("26000", 'prepared statement "x" does not exist'),
        ("42P05", 'prepared statement "x" already exists'),
        ("08P01", "unsupported startup parameter: statement_timeout"),
    ],
)
def test_a_pooler_in_between_is_told_of(code: str, text: str) -> None:
    error = server_error(code, text, is_connecting=True)

    assert type(error) is SinkFatal
    assert "pgbouncer: true" in error.message


def test_a_pooler_that_cannot_reach_its_server_is_waited_for() -> None:
    assert _ambiguity(server_error("08P01", "server login failed", is_connecting=True)) is False


def _ambiguity(error: SinkError) -> bool:
    assert isinstance(error, SinkRetryable)
    return error.ambiguous
