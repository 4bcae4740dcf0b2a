"""Runs of numbers: counted as rows come, in whatever order, held against the slow and obvious way."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from backends.numbers import repeated_of, runs_of
from backends.testing import MOMENT, make_record
from backends.testing.naive import naive_repeated, naive_runs

BOOTS = sorted(uuid7() for _ in range(3))


@given(st.lists(st.tuples(st.sampled_from([*BOOTS, None]), st.integers(0, 30), st.integers(0, 9))))
def test_the_runs_are_those_that_anybody_would_find(rows):
    records = [
        make_record(boot_id=boot_id, seq=seq, timestamp=MOMENT + timedelta(hours=hours))
        for boot_id, seq, hours in rows
    ]

    assert runs_of(records) == naive_runs(records)


@given(st.lists(st.integers(1, 12)))
def test_rows_that_share_a_number_are_named(numbers):
    records = [make_record(boot_id=BOOTS[0], seq=seq) for seq in numbers]

    assert repeated_of(records, BOOTS[0], 1000) == naive_repeated(records)
    assert any(run.has_repeated for run in runs_of(records)) == bool(naive_repeated(records))
