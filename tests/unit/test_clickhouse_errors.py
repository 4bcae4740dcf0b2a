"""ClickHouse's numbers: each means one of the contract's four errors, and tells nothing of a row."""

from __future__ import annotations

import pytest

from backends.clickhouse_errors import sentence, server_error
from backends.errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable

PARTS = "Code: 252. DB::Exception: Too many parts (3000 with average size of 1.00 KiB). (TOO_MANY_PARTS)"
PARTITIONS = "Code: 252. DB::Exception: Too many partitions for single INSERT block. (TOO_MANY_PARTS)"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, SinkFatal) for code in (16, 47, 60, 62, 81, 115, 164, 192, 193, 194, 497, 516)),
        *((code, SinkBatchRejected) for code in (27, 53, 69, 70)),
        *((code, SinkRetryable) for code in (159, 202, 209, 210, 241, 242, 319, 999, 1002, 4711)),
    ],
)
def test_each_number_means_one_of_the_contracts_errors(code: int, kind: type[SinkError]) -> None:
    error = server_error(code, "SOME_NAME", f"Code: {code}. DB::Exception: something. (SOME_NAME)")

    assert type(error) is kind
    assert error.code == "SOME_NAME"


def test_too_many_parts_asks_to_slow_down_and_too_many_partitions_to_be_split() -> None:
    parts, partitions = (server_error(252, "TOO_MANY_PARTS", text) for text in (PARTS, PARTITIONS))

    assert isinstance(parts, SinkRetryable)
    assert (parts.slow_down, parts.ambiguous) == (True, False)
    assert type(partitions) is SinkBatchRejected


@pytest.mark.parametrize(
    ("code", "is_ambiguous"), [(202, False), (242, False), (159, True), (241, True), (4711, True)]
)
def test_only_what_was_refused_before_it_began_is_certainly_not_stored(code: int, is_ambiguous: bool) -> None:
    error = server_error(code, None, "")

    assert isinstance(error, SinkRetryable)
    assert error.ambiguous == is_ambiguous


@pytest.mark.parametrize("code", [27, 53, 70, 117, 4711])
def test_a_text_that_may_quote_a_row_is_not_passed_on(code: int) -> None:
    error = server_error(code, None, f"Code: {code}. DB::Exception: Cannot parse 's3cret'. (X)")

    assert "s3cret" not in str(error)
    assert error.code


def test_the_servers_sentence_is_one_line_without_its_frame() -> None:
    text = (
        "Received ClickHouse exception, code: 60, server response: Code: 60. DB::Exception: Table db.t\n"
        " does not exist. (UNKNOWN_TABLE) (version 26.9.2.1 (official build)) (for url http://h:1)"
    )

    assert sentence(text) == "Table db.t does not exist."
    assert len(sentence("DB::Exception: " + "x" * 5000)) == 301
    assert sentence("Network Error: refused") == "Network Error: refused"
