"""Columns: what is sent is what the row holds, and a value that a column cannot hold is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import pytest
from msgspec import structs

from backends.columns import TIMESTAMP, by_month, columns_of, microseconds
from backends.errors import SinkRowsRejected
from backends.record import COLUMNS
from backends.testing import make_bare_record, make_batch, make_full_record, make_record


def column(name: str, *rows: Any) -> list[Any]:
    return list(columns_of(rows)[COLUMNS.index(name)])


def test_a_row_becomes_one_value_in_each_column() -> None:
    row = make_full_record(timestamp=datetime(1970, 1, 2, 0, 0, 0, 7, tzinfo=UTC), cost=Decimal("0.5"))

    sent = {name: values[0] for name, values in zip(COLUMNS, columns_of([row]), strict=True)}

    assert row.boot_id
    assert (sent["id"], sent["boot_id"]) == (row.id.int, row.boot_id.int)
    assert sent["timestamp"] == 86_400 * 10**6 + 7
    assert str(sent["cost"]) == "0.500000000"
    for name in set(COLUMNS) - {"id", "boot_id", "timestamp", "cost"}:
        assert sent[name] == getattr(row, name)


def test_what_is_unknown_stays_unknown_between_what_is_known() -> None:
    rows = (make_full_record(), make_bare_record(), make_full_record(cost=Decimal(0), cached_tokens=0))

    assert column("cost", *rows) == [rows[0].cost, None, 0]
    assert column("cached_tokens", *rows) == [1, None, 0]
    assert column("boot_id", *rows)[1] is None
    assert column("tags", *rows) == [rows[0].tags, None, rows[2].tags]


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    moment = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=5, minutes=45)))

    assert column("timestamp", make_record(timestamp=moment)) == [microseconds(moment.astimezone(UTC))]


def test_numbers_of_kindred_types_are_taken() -> None:
    row = make_record(status_code=HTTPStatus.BAD_GATEWAY, prompt_tokens=True, latency_ms=3)

    assert column("status_code", row) == [502]
    assert column("prompt_tokens", row) == [1]
    assert column("latency_ms", row) == [3.0]


def test_a_cost_has_nine_places_rounded_half_to_even() -> None:
    rows = [make_record(cost=Decimal(text)) for text in ("1.0000000005", "1.0000000015", "1E+8")]

    assert list(map(str, column("cost", *rows))) == ["1.000000000", "1.000000002", "100000000.000000000"]


@pytest.mark.parametrize(
    "fields",
    [
        {"id": None},
        {"id": "0190"},
        {"boot_id": 7},
        {"timestamp": None},
        {"timestamp": "yesterday"},
        {"timestamp": datetime(2026, 1, 1)},
        {"timestamp": datetime(1969, 12, 31, tzinfo=UTC)},
        {"timestamp": datetime.max.replace(tzinfo=UTC)},
        {"request_id": None},
        {"endpoint": b"/v1"},
        {"user_id": 5},
        {"user_id": b"\xff"},
        {"user_id": 0},
        {"tags": {"not": "a text"}},
        {"tags": {}},
        {"model": "half an emoji \ud83d"},
        {"seq": None},
        {"seq": -(2**63) - 1},
        {"prompt_tokens": 2**63},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": "12"},
        {"status_code": 2**31},
        {"stream": None},
        {"stream": "yes"},
        {"cost": "a lot"},
        {"cost": Decimal("NaN")},
        {"cost": Decimal("Infinity")},
        {"cost": Decimal(10**9)},
        {"latency_ms": "slow"},
        {"ttft_ms": object()},
    ],
    ids=str,
)
def test_a_value_that_its_column_cannot_hold_is_found_among_others(fields: dict[str, Any]) -> None:
    good = make_batch(3).rows
    rows = (*good[:2], make_full_record(**fields), good[2], make_full_record(**fields))

    with pytest.raises(SinkRowsRejected) as caught:
        columns_of(rows)

    assert set(caught.value.rejected) == {2, 4}
    assert next(iter(fields)) in caught.value.rejected[2].message
    assert caught.value.stored is None


def test_every_bad_row_is_named_once_whatever_is_wrong_with_it() -> None:
    good = make_record()
    rows = (
        structs.replace(good, seq=2**64, cost=Decimal("NaN")),
        good,
        structs.replace(good, user_id="\ud800"),
    )

    with pytest.raises(SinkRowsRejected) as caught:
        columns_of(rows)

    assert list(caught.value.rejected) == [0, 2]


def test_what_is_told_of_a_bad_row_holds_nothing_of_it() -> None:
    with pytest.raises(SinkRowsRejected) as caught:
        columns_of([make_record(user_id="s3cret\ud800", prompt_tokens=2**70, tags="s3cret")])

    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value.rejected)


def test_a_batch_of_one_month_is_one_piece() -> None:
    columns = columns_of(make_batch(5).rows)

    assert by_month(columns) == {"202601": columns}


def test_a_batch_is_cut_at_the_ends_of_months_and_keeps_its_order() -> None:
    end = datetime(2026, 2, 1, tzinfo=UTC)
    moments = [end, end - timedelta(microseconds=1), end + timedelta(days=40), end - timedelta(days=30)]
    columns = columns_of([make_record(timestamp=moment, seq=n) for n, moment in enumerate(moments)])

    pieces = by_month(columns)

    assert list(pieces) == ["202601", "202602", "202603"]
    assert [list(piece[COLUMNS.index("seq")]) for piece in pieces.values()] == [[1, 3], [0], [2]]
    assert list(pieces["202601"][TIMESTAMP]) == [microseconds(moments[1]), microseconds(moments[3])]
