"""Whole numbers as ranges: held against Python's own sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.ranges import Ranges

numbers = st.sets(st.integers(0, 60))


@given(numbers)
def test_a_set_comes_back_as_it_was(some):
    ranges = Ranges.of(some)

    assert list(ranges) == sorted(some)
    assert len(ranges) == len(some)
    assert ranges.last == max(some, default=0)
    assert bool(ranges) == bool(some)


@given(numbers)
def test_the_text_is_read_as_it_was_written(some):
    assert Ranges.parse(str(Ranges.of(some))) == Ranges.of(some)


@given(numbers, numbers)
def test_together_apart_and_in_common(some, others):
    left, right = Ranges.of(some), Ranges.of(others)

    assert left | right == Ranges.of(some | others)
    assert left - right == Ranges.of(some - others)
    assert left & right == Ranges.of(some & others)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))))
def test_spans_may_overlap_touch_and_be_empty(spans):
    wanted = {number for first, last in spans for number in range(first, last + 1)}

    assert Ranges.covering(spans) == Ranges.of(wanted)


def test_the_text_says_what_follows_each_other_in_short():
    assert str(Ranges.of([5, 6, 7, 8, 9, 12])) == "5-9,12"
    assert str(Ranges()) == ""


@pytest.mark.parametrize("text", ["x", "1,", "3-1", "1-2-3", "-", "-4", ","])
def test_another_text_is_refused(text):
    with pytest.raises(ValueError):
        Ranges.parse(text)
