"""What MongoDB's error numbers mean, without a server that says them."""

from __future__ import annotations

from typing import Any

import pytest

from backends.errors import SinkError, SinkFatal, SinkRetryable
from backends.mongo_codes import FATAL, TRANSIENT, UNSTORABLE, server_error, settled
from backends.sink import Committed

ID = {"_id": 1}


def answer(*errors: dict[str, Any], stored: int = 0, unconfirmed: bool = False) -> dict[str, Any]:
    concern = [{"code": 64, "errmsg": "waiting for replication timed out"}] if unconfirmed else []
    return {"writeErrors": list(errors), "writeConcernErrors": concern, "nInserted": stored}


def refusal(index: int, code: int, **more: Any) -> dict[str, Any]:
    return {"index": index, "code": code, "errmsg": "no", **more}


def test_rows_that_are_there_are_known() -> None:
    errors = [refusal(0, 11000, keyPattern=ID), refusal(2, 11000)]

    assert settled(answer(*errors, stored=3)) == (Committed(3, 2), {})


def test_a_row_that_another_unique_index_refuses_is_refused() -> None:
    known, refused = refusal(0, 11000, keyPattern=ID), refusal(1, 11000, keyPattern={"request_id": 1})

    stored, rejected = settled(answer(known, refused, stored=1))

    assert stored == Committed(1, 1)
    assert {index: why.code for index, why in rejected.items()} == {1: "server_11000"}


def test_a_row_that_the_server_does_not_like_is_refused_without_its_text() -> None:
    error = refusal(4, 121, errInfo={"failingDocumentId": "secret"})
    error["errmsg"] = "secret"

    stored, rejected = settled(answer(error, stored=4))

    assert stored == Committed(4)
    assert list(rejected) == [4] and "secret" not in repr(rejected)


def test_without_a_majority_nothing_is_stored_nor_known() -> None:
    for errors in ((), (refusal(0, 11000, keyPattern=ID),), (refusal(0, 121),)):
        with pytest.raises(SinkRetryable) as caught:
            settled(answer(*errors, stored=3, unconfirmed=True))
        assert caught.value.ambiguous


@pytest.mark.parametrize("code", sorted(TRANSIENT))
def test_a_row_that_meets_a_failover_is_no_bad_row(code: int) -> None:
    with pytest.raises(SinkRetryable) as caught:
        settled(answer(refusal(0, 121), refusal(1, code), stored=3))

    assert caught.value.ambiguous


def test_a_missing_right_dead_letters_no_row() -> None:
    with pytest.raises(SinkFatal, match="readWrite"):
        settled(answer(refusal(0, 13)))


@pytest.mark.parametrize(
    ("code", "name", "kind"),
    [
        (18, "AuthenticationFailed", SinkFatal),
        (13, "Unauthorized", SinkFatal),
        (2, "BadValue", SinkFatal),
        (10107, "NotWritablePrimary", SinkRetryable),
        (50, "MaxTimeMSExpired", SinkRetryable),
        (987654, None, SinkRetryable),
        (None, None, SinkRetryable),
    ],
)
def test_a_command_that_fails_is_fatal_or_tried_again(
    code: int | None, name: str | None, kind: type[SinkError]
) -> None:
    error = server_error(code, name)

    assert type(error) is kind
    assert error.code == (name or f"server_{code}")
    assert not isinstance(error, SinkRetryable) or error.ambiguous


def test_no_number_means_two_things() -> None:
    assert not FATAL & TRANSIENT and not FATAL & UNSTORABLE and not TRANSIENT & UNSTORABLE
