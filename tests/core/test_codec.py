"""A record as JSON and back: no field, digit or microsecond is lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import to_json
from backends.codec import cost_text, from_json, json_bytes, plain_rows, timestamp_text
from backends.record import COLUMNS, UsageRecord
from backends.sanitise import sanitise
from backends.testing import make_bare_record, make_full_record, make_record, money, records

moments = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2999, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


@given(records().map(sanitise))
def test_a_record_comes_back_from_json_as_it_was(row: UsageRecord) -> None:
    assert from_json(json.loads(json.dumps(to_json(row)))) == row


@given(records().map(sanitise))
def test_a_record_comes_back_from_the_bytes_of_a_file_as_it_was(row: UsageRecord) -> None:
    assert from_json(json.loads(json_bytes(row))) == row


@pytest.mark.parametrize("strange", [{"seq": 2**70}, {"seq": -(2**70)}, {"model": "\ud800"}], ids=str)
def test_what_no_sink_can_store_comes_back_from_the_bytes_of_a_file_too(strange: dict[str, Any]) -> None:
    row = make_record(**strange)

    assert from_json(json.loads(json_bytes(row))) == row


class Name(str):
    """A text of a caller's own kind."""


class Count(int):
    """A number of a caller's own kind."""


@pytest.mark.parametrize("own", [{"model": Name("m")}, {"prompt_tokens": Count(7)}], ids=["text", "number"])
def test_values_of_a_callers_own_kind_are_written_as_what_they_are(own: dict[str, Any]) -> None:
    row = make_record(**own)

    assert from_json(json.loads(json_bytes(row))) == row


@pytest.mark.parametrize("row", [make_full_record(), make_bare_record()], ids=["full", "bare"])
def test_every_column_is_there_and_in_its_order(row: UsageRecord) -> None:
    assert tuple(to_json(row)) == COLUMNS
    assert from_json(to_json(row)) == row


@given(money())
def test_a_cost_keeps_nine_places_and_has_no_exponent(cost: Decimal) -> None:
    text = cost_text(cost)

    assert Decimal(text) == cost
    assert "E" not in text and len(text.partition(".")[2]) == 9


@given(moments, moments)
def test_texts_of_times_sort_as_the_times_do(first: datetime, second: datetime) -> None:
    assert (timestamp_text(first) < timestamp_text(second)) == (first < second)
    assert datetime.fromisoformat(timestamp_text(first)) == first


def test_a_time_of_another_zone_is_told_in_utc() -> None:
    moment = datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))

    assert timestamp_text(moment) == "2025-12-31T23:00:00.000000Z"


def test_rows_of_one_batch_are_told_each_by_itself() -> None:
    zone = timezone(timedelta(hours=2))
    moments = [datetime(2026, 1, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, 0, 0, 5, tzinfo=UTC)]
    moments += [moment.replace(tzinfo=zone) for moment in moments]
    rows = [make_record(timestamp=moment) for moment in moments] + [make_full_record(), make_bare_record()]

    assert plain_rows(rows) == [tuple(to_json(row).values()) for row in rows]
    assert [values[COLUMNS.index("timestamp")] for values in plain_rows(rows)[:4]] == [
        timestamp_text(moment) for moment in moments
    ]
    assert plain_rows([]) == []


def test_json_that_no_record_was_made_from_is_refused() -> None:
    whole = to_json(make_record())

    with pytest.raises(KeyError):
        from_json({name: value for name, value in whole.items() if name != "seq"})
    for name, value in (("id", "no id"), ("timestamp", "yesterday")):
        with pytest.raises(ValueError):
            from_json({**whole, name: value})
