"""Who has the next call."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routed import Clock, Dice, answered, fail, health, target, targets

from gateway.routing.select import EXPLORED, Selector, Turns


def free(target):
    return None


def select(how, known, rng=None):
    return Selector(how, known, rng or Dice())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 4))
def test_weighted_gives_every_target_exactly_its_share(weights, rounds):
    turns = Turns()
    candidates = [target(f"p:{index}", weight) for index, weight in enumerate(weights)]

    had = Counter(turns.next(candidates).key for _ in range(rounds * sum(weights)))

    assert [had[each.key] for each in candidates] == [rounds * weight for weight in weights]


def test_weighted_spreads_the_turns_evenly():
    turns, candidates = Turns(), targets(a=3, b=1)

    assert [turns.next(candidates).route.model for _ in range(8)] == list("aabaaaba")


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 40))
def test_a_target_that_was_left_out_does_not_catch_up(heavy, light, absences):
    turns, (a, b) = Turns(), targets(a=heavy, b=light)
    for _ in range(absences):
        assert turns.next([a]) is a

    had = Counter(turns.next([a, b]).key for _ in range(heavy + light))

    assert had == {a.key: heavy, b.key: light}


def test_least_busy_takes_the_one_with_the_fewest_calls_under_way():
    a, b = targets(a=1, b=1)
    known = health("p:a", "p:b")
    selector = select("least_busy", known)

    with known.begin("p:a", stream=False):
        assert [selector.choose([a, b], free, stream=False) for _ in range(3)] == [b, b, b]
        with known.begin("p:b", stream=False), known.begin("p:b", stream=False):
            assert selector.choose([a, b], free, stream=False) is a


def test_least_busy_goes_by_weight_among_equals():
    candidates = targets(a=3, b=1)
    selector = select("least_busy", health("p:a", "p:b"))

    had = Counter(selector.choose(candidates, free, stream=False).route.model for _ in range(40))

    assert had == {"a": 30, "b": 10}


def test_lowest_latency_takes_the_fastest():
    clock = Clock()
    known = health("p:a", "p:b", clock=clock)
    answered(known, "p:a", clock, 2.0)
    answered(known, "p:b", clock, 1.0)
    selector, candidates = select("lowest_latency", known), targets(a=9, b=1)

    assert {selector.choose(candidates, free, stream=False).route.model for _ in range(9)} == {"b"}


def test_lowest_latency_follows_a_target_that_becomes_slow():
    clock = Clock()
    known = health("p:a", "p:b", clock=clock)
    answered(known, "p:a", clock, 2.0)
    answered(known, "p:b", clock, 1.0)
    for _ in range(5):
        answered(known, "p:b", clock, 4.0)

    assert select("lowest_latency", known).choose(targets(a=1, b=1), free, stream=False).key == "p:a"


def test_lowest_latency_gives_an_unknown_target_one_call_at_a_time():
    clock = Clock()
    known = health("p:a", "p:b", clock=clock)
    answered(known, "p:a", clock, 2.0)
    selector, candidates = select("lowest_latency", known), targets(a=1, b=1)

    assert selector.choose(candidates, free, stream=False).key == "p:b"
    with known.begin("p:b", stream=False):
        assert selector.choose(candidates, free, stream=False).key == "p:a"


def test_lowest_latency_knows_streams_by_their_first_byte_apart_from_plain_answers():
    clock = Clock()
    known = health("p:a", "p:b", clock=clock)
    for key, plain_s, stream_s in (("p:a", 5.0, 0.1), ("p:b", 1.0, 0.5)):
        answered(known, key, clock, plain_s)
        answered(known, key, clock, stream_s, stream=True)
    selector, candidates = select("lowest_latency", known), targets(a=1, b=1)

    assert selector.choose(candidates, free, stream=False).key == "p:b"
    assert selector.choose(candidates, free, stream=True).key == "p:a"


def test_lowest_latency_looks_at_the_others_now_and_then():
    clock = Clock()
    known = health("p:a", "p:b", clock=clock)
    answered(known, "p:a", clock, 2.0)
    answered(known, "p:b", clock, 1.0)
    selector, candidates = select("lowest_latency", known, Random(1)), targets(a=1, b=1)

    had = Counter(selector.choose(candidates, free, stream=False).key for _ in range(10_000))

    assert had["p:a"] == pytest.approx(10_000 * EXPLORED / 2, rel=0.3)


def test_a_target_that_fails_at_once_is_not_the_fastest():
    clock = Clock()
    known = health("p:a", "p:b", clock=clock, failures=100)
    answered(known, "p:a", clock, 2.0)
    answered(known, "p:b", clock, 3.0)
    fail(known, "p:b", 9)

    assert select("lowest_latency", known).choose(targets(a=1, b=1), free, stream=False).key == "p:a"


def test_cheapest_takes_the_lowest_price_and_one_without_a_price_last():
    costs = {"p:a": None, "p:b": Decimal("0.2"), "p:c": Decimal("0.1")}.get
    selector, (a, b, c) = select("cheapest", health()), targets(a=1, b=1, c=1)

    def price(each):
        return costs(each.key)

    assert [selector.choose([a, b, c], price, stream=False) for _ in range(3)] == [c, c, c]
    assert selector.choose([a, b], price, stream=False) is b
    assert selector.choose([a], price, stream=False) is a
