"""Which targets are left alone, and how they come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routed import Clock, answered, fail, health

KEY = "p:a"


@pytest.fixture
def clock():
    return Clock()


def test_a_target_is_left_alone_after_so_many_failures_in_a_row(clock):
    known = health(KEY, clock=clock)

    fail(known, KEY, 2)
    assert known.is_open(KEY)
    fail(known, KEY)

    assert not known.is_open(KEY)


def test_an_answer_in_between_begins_the_count_anew(clock):
    known = health(KEY, clock=clock)

    for _ in range(5):
        fail(known, KEY, 2)
        answered(known, KEY, clock, 0.1)

    assert known.is_open(KEY)


def test_after_the_cooldown_one_call_tries(clock):
    known = health(KEY, clock=clock)
    fail(known, KEY, 3)
    clock.now += 29.9
    assert not known.is_open(KEY)
    clock.now += 0.2

    assert known.is_open(KEY)
    with known.begin(KEY, stream=False):
        assert not known.is_open(KEY), "a second trial at once"
    assert known.is_open(KEY), "a trial without a verdict makes room for the next"


def test_a_good_trial_brings_the_target_back(clock):
    known = health(KEY, clock=clock)
    fail(known, KEY, 3)
    clock.now += 31
    answered(known, KEY, clock, 0.1)

    fail(known, KEY, 2)
    assert known.is_open(KEY), "the count began anew"


def test_the_first_byte_of_a_stream_brings_the_target_back(clock):
    known = health(KEY, clock=clock)
    fail(known, KEY, 3)
    clock.now += 31

    with known.begin(KEY, stream=True) as trial:
        trial.answer()
        assert known.is_open(KEY)
        with known.begin(KEY, stream=True), known.begin(KEY, stream=True):
            assert known.is_open(KEY)


def test_a_bad_trial_begins_another_cooldown(clock):
    known = health(KEY, clock=clock)
    fail(known, KEY, 3)
    clock.now += 31
    fail(known, KEY)

    assert not known.is_open(KEY)
    clock.now += 31
    assert known.is_open(KEY)


def test_calls_that_began_before_a_cooldown_neither_end_nor_prolong_it(clock):
    known = health(KEY, clock=clock)
    with known.begin(KEY, stream=False) as good, known.begin(KEY, stream=False) as bad:
        fail(known, KEY, 3)
        until = known.cools_until(KEY)
        clock.now += 20
        good.answer()
        good.succeed()
        bad.fail()

    assert not known.is_open(KEY)
    assert known.cools_until(KEY) == until


def test_a_target_may_ask_for_a_rest(clock):
    known = health(KEY, clock=clock)
    fail(known, KEY, rest_s=4)

    assert not known.is_open(KEY)
    clock.now += 4.1
    assert known.is_open(KEY)


def test_no_rest_is_much_longer_than_a_cooldown(clock):
    known = health(KEY, clock=clock)
    fail(known, KEY, rest_s=86_400)

    clock.now += 40
    assert known.is_open(KEY)


def test_without_a_cooldown_no_target_is_left_alone(clock):
    known = health(KEY, clock=clock, cooldown_s=0)
    fail(known, KEY, 9, rest_s=5)

    assert known.is_open(KEY)


def test_calls_under_way_are_counted_until_they_are_closed(clock):
    known = health(KEY, clock=clock)
    tickets = [known.begin(KEY, stream=True) for _ in range(3)]

    assert known.in_flight(KEY) == 3
    for ticket in tickets:
        ticket.fail()
        ticket.close()
        ticket.close()
        ticket.answer()
    assert known.in_flight(KEY) == 0


def test_a_target_that_no_name_leads_to_is_not_remembered(clock):
    known = health(KEY, clock=clock)
    fail(known, "p:made-up-by-a-client", 9)

    assert known.is_open("p:made-up-by-a-client")
    assert known.in_flight("p:made-up-by-a-client") == 0


WORDS = st.sampled_from(["begin", "answer", "succeed", "fail", "close", "wait"])


@given(st.lists(st.tuples(WORDS, st.integers(0, 9)), max_size=60))
def test_whatever_happens_a_target_comes_back_in_the_end(steps):
    clock = Clock()
    known = health(KEY, clock=clock, failures=2)
    tickets = []
    for word, number in steps:
        if word == "begin":
            tickets.append(known.begin(KEY, stream=False))
        elif word == "wait":
            clock.now += number * 5
        elif tickets:
            getattr(tickets[number % len(tickets)], word)()

    for ticket in tickets:
        ticket.close()

    assert known.in_flight(KEY) == 0
    clock.now += 60
    assert known.is_open(KEY)
    answered(known, KEY, clock, 1.0)
    with known.begin(KEY, stream=False):
        assert known.is_open(KEY)
