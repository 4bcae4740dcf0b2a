"""The way of one call: what is tried, in which order, and after which pause."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from email.utils import format_datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routed import NOW, OUTAGE, Clock, fail, refused, router, target, targets

from gateway.errors import NotFound
from gateway.providers.errors import (
    ProviderMalformed,
    ProviderStreamCut,
    ProviderTimeout,
    ProviderUnreachable,
)
from gateway.routing.attempts import LONGEST_PAUSE_S, is_fault, is_tried_again, pause_s, rest_s
from gateway.translation.base import NotTranslatable


def begun(routed, name="fast"):
    plan = routed.plan(name)
    plan.choose(lambda each: None, stream=False)
    return plan


def walk(plan, error=OUTAGE):
    """Every attempt that the call makes if all fail with ``error``."""
    way = []
    while True:
        with plan.start() as ticket:
            way.append(plan.route.price_key)
            plan.heed(ticket, error, NOW)
        if plan.after(error, NOW) is None:
            return way


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_what_passes_is_tried_again(status):
    assert is_tried_again(refused(status)) and is_fault(refused(status))


@pytest.mark.parametrize(
    "error", [ProviderUnreachable, ProviderTimeout, ProviderStreamCut, ProviderMalformed]
)
def test_no_answer_is_tried_again(error):
    assert is_tried_again(error("nothing")) and is_fault(error("nothing"))


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 302])
def test_what_would_fail_again_is_not_tried_again(status):
    assert not is_tried_again(refused(status))
    assert is_fault(refused(status)) is (status in (401, 403))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("7", 7),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
    ],
)
def test_a_rest_is_read_from_seconds_and_dates(value, seconds):
    assert rest_s(refused(429, value), NOW) == seconds


@given(st.integers(1, 2000), st.integers(0, 2**32))
def test_a_pause_is_bounded(tries, seed):
    assert 0 <= pause_s(tries, 0.0, Random(seed)) <= LONGEST_PAUSE_S


def test_a_pause_grows_and_a_target_that_was_not_tried_needs_none():
    bounds = [max(pause_s(tries, 0.0, Random(seed)) for seed in range(200)) for tries in range(5)]

    assert bounds[0] == 0
    assert bounds == sorted(bounds)
    assert pause_s(1, 3.0, Random(1)) >= 3


def test_a_clients_own_choice_is_tried_once():
    assert walk(begun(router(targets=targets(a=1), retries=3), "p:a")) == ["p:a"]


def test_a_name_that_is_none_is_not_found():
    with pytest.raises(NotFound):
        router(targets=targets(a=1)).plan("slow")


def test_a_single_target_is_tried_as_often_as_the_name_has_retries():
    assert walk(begun(router(targets=targets(a=1), retries=2))) == ["p:a"] * 3


def test_another_try_goes_to_another_target():
    way = walk(begun(router(targets=targets(a=3, b=1), retries=3, failures=9)))

    assert Counter(way[:2]) == Counter(way[2:]) == {"p:a": 1, "p:b": 1}


def test_fallbacks_follow_in_their_order_each_once():
    routed = router(targets=targets(a=1), fallbacks=(target("q:x"), target("q:y")), retries=1)

    assert walk(begun(routed)) == ["p:a", "p:a", "q:x", "q:y"]


def test_without_retries_the_fallback_is_next():
    assert walk(begun(router(targets=targets(a=1), fallbacks=(target("q:x"),)))) == ["p:a", "q:x"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_an_error_that_would_come_again_ends_the_call(status):
    routed = router(targets=targets(a=1, b=1), fallbacks=(target("q:x"),), retries=5)

    assert len(walk(begun(routed), refused(status))) == 1


def test_what_cannot_be_put_to_one_provider_goes_to_the_others_and_tells_nothing_of_that_one():
    clock = Clock()
    routed = router(targets=targets(a=1), fallbacks=(target("q:x"),), retries=3, clock=clock)
    fail(routed.health, "p:a", 3)
    clock.now += 60

    assert walk(begun(routed), NotTranslatable("this")) == ["p:a", "q:x"]

    until = routed.health.cools_until("p:a")
    assert until < clock.now and until > 0, "the trial had no verdict"
    assert routed.health.is_open("p:a")


def test_a_target_that_cools_down_is_passed_over():
    routed = router(targets=targets(a=1, b=1), retries=1, failures=3)
    fail(routed.health, "p:a", 3)

    assert {begun(routed).route.price_key for _ in range(4)} == {"p:b"}


def test_when_all_targets_cool_down_the_fallback_is_first_and_they_are_the_last_resort():
    routed = router(targets=targets(a=1), fallbacks=(target("q:x"),), retries=0)
    fail(routed.health, "p:a", 3)

    assert walk(begun(routed)) == ["q:x", "p:a"]


def test_when_nothing_is_well_the_call_is_made_all_the_same():
    clock = Clock()
    routed = router(targets=targets(a=1, b=1), clock=clock)
    fail(routed.health, "p:b", 3)
    clock.now += 1
    fail(routed.health, "p:a", 3)

    assert begun(routed).route.price_key == "p:b", "which is sooner over it"


def test_when_nothing_is_well_a_target_that_only_rests_is_tried_before_one_that_fails():
    routed = router(targets=targets(a=1, b=1), retries=3)
    fail(routed.health, "p:a", rest_s=1)
    fail(routed.health, "p:b", 3)

    assert walk(begun(routed), refused(429, "1"))[0] == "p:a"


def test_two_calls_do_not_both_make_the_trial():
    clock = Clock()
    routed = router(targets=targets(a=1), fallbacks=(target("q:x"),), clock=clock)
    fail(routed.health, "p:a", 3)
    clock.now += 60
    first, second = begun(routed), begun(routed)
    assert first.route == second.route

    with first.start(), second.start():
        assert [each.route.price_key for each in (first, second)] == ["p:a", "q:x"]


def test_the_rest_that_a_provider_asks_for_is_kept_before_the_same_target():
    plan = begun(router(targets=targets(a=1), retries=1))
    with plan.start() as ticket:
        plan.heed(ticket, refused(429, "3"), NOW)

    assert plan.after(refused(429, "3"), NOW).pause_s >= 3


def test_another_target_does_not_wait_for_the_rest_of_the_first():
    plan = begun(router(targets=targets(a=1, b=1), retries=1))
    with plan.start() as ticket:
        plan.heed(ticket, refused(429, "3600"), NOW)

    assert plan.after(refused(429, "3600"), NOW).pause_s == 0


def test_a_rest_that_is_too_long_ends_the_call():
    plan = begun(router(targets=targets(a=1), retries=1))
    with plan.start() as ticket:
        plan.heed(ticket, refused(429, "3600"), NOW)

    assert plan.after(refused(429, "3600"), NOW) is None


def test_a_rest_that_is_too_long_leaves_the_fallbacks():
    plan = begun(router(targets=targets(a=1), fallbacks=(target("q:x"),), retries=2, cooldown_s=0))

    assert walk(plan, refused(429, "3600")) == ["p:a", "q:x"]


def test_no_target_is_tried_again_by_the_call_that_it_asked_for_a_long_rest():
    plan = begun(router(targets=targets(a=1, b=1), retries=5))

    assert walk(plan, refused(429, "3600")) == ["p:a", "p:b"]


def test_a_rest_is_kept_also_when_another_target_was_tried_meanwhile():
    plan = begun(router(targets=targets(a=9, b=1), retries=2, cooldown_s=0))
    for key, error in (("p:a", refused(429, "8")), ("p:b", OUTAGE)):
        with plan.start() as ticket:
            assert plan.route.price_key == key
            plan.heed(ticket, error, NOW)
        step = plan.after(error, NOW)

    assert plan.route.price_key == "p:a" and step.pause_s >= 8


def test_where_a_call_may_not_go_is_left_out_unless_it_is_everywhere():
    plan = router(targets=targets(a=1, b=1), fallbacks=(target("q:x"),)).plan("fast")
    plan.keep(lambda route: route.price_key == "q:x")
    assert [route.price_key for route in plan.routes] == ["q:x"]

    plan.keep(lambda route: False)
    assert [route.price_key for route in plan.routes] == ["q:x"]


@given(st.data())
def test_no_way_is_longer_than_the_name_allows(data):
    draw = data.draw
    fallbacks = tuple(target(f"q:{index}") for index in range(draw(st.integers(0, 3))))
    retries = draw(st.integers(0, 5))
    names = "abcd"[: draw(st.integers(1, 4))]
    routed = router(
        targets=targets(**{name: draw(st.integers(1, 5)) for name in names}),
        fallbacks=fallbacks,
        retries=retries,
        failures=draw(st.integers(1, 4)),
        rng=Random(draw(st.integers(0, 99))),
    )
    for _ in range(draw(st.integers(1, 5))):
        way = walk(begun(routed))

        assert len(way) == 1 + retries + len(fallbacks)
        tried = Counter(way)
        assert all(tried[each.key] == 1 for each in fallbacks)
