"""When to try again, as arithmetic."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from backends.retry import CAP_DRAINING_S, CAP_RUNNING_S, FAILURES_TO_OPEN, Backoff, Breaker, ceiling
from backends.testing.rig import SEED


@given(st.integers(1, 10_000), st.sampled_from((CAP_RUNNING_S, CAP_DRAINING_S)), st.integers(0))
def test_a_pause_is_never_longer_than_its_cap_nor_negative(attempts: int, cap: float, seed: int) -> None:
    assert 0 <= Backoff(Random(seed)).delay(attempts, cap) <= ceiling(attempts, cap) <= cap


def test_pauses_double_until_the_cap() -> None:
    assert [ceiling(attempts, CAP_RUNNING_S) for attempts in (1, 2, 3, 8, 9, 99)] == [
        0.2,
        0.4,
        0.8,
        25.6,
        30.0,
        30.0,
    ]


def test_pauses_of_many_writers_do_not_fall_together() -> None:
    backoff = Backoff(Random(SEED))
    pauses = [backoff.delay(5, CAP_RUNNING_S) for _ in range(100)]

    assert len(set(pauses)) == 100
    assert min(pauses) < 0.5 and max(pauses) > 2.7, "the whole range is used"


@given(st.integers(1, 100), st.integers(0))
def test_an_open_breaker_spares_the_sink_for_at_least_half_the_range(failures: int, seed: int) -> None:
    top = ceiling(failures, CAP_RUNNING_S)

    assert top / 2 <= Backoff(Random(seed)).pause(failures) <= top


def open_breaker() -> Breaker:
    breaker = Breaker(Backoff(Random(SEED)))
    for _ in range(FAILURES_TO_OPEN):
        breaker.fail(now=100.0)
    return breaker


def test_failures_that_are_not_in_a_row_open_nothing() -> None:
    breaker = Breaker(Backoff(Random(SEED)))
    for _ in range(20):
        for _ in range(FAILURES_TO_OPEN - 1):
            breaker.fail(now=0.0)
        breaker.succeed()

    assert breaker.state == "closed" and breaker.admits(0.0)


def test_an_open_breaker_admits_one_probe_after_its_pause_and_no_second_beside_it() -> None:
    breaker = open_breaker()
    assert not breaker.admits(100.0)

    assert breaker.admits(breaker.probe_at)
    breaker.attempt()

    assert breaker.state == "half_open"
    assert not breaker.admits(breaker.probe_at + 1e6)


def test_a_probe_that_fails_opens_again_and_one_that_succeeds_closes() -> None:
    breaker = open_breaker()
    first_probe = breaker.probe_at
    breaker.attempt()
    breaker.fail(first_probe)
    assert breaker.state == "open" and breaker.probe_at > first_probe

    breaker.attempt()
    breaker.succeed()

    assert breaker.state == "closed" and breaker.admits(0.0)


def test_wrong_credentials_open_at_once() -> None:
    breaker = Breaker(Backoff(Random(SEED)))

    breaker.trip(now=0.0)

    assert breaker.state == "open" and breaker.probe_at >= 1.6


def test_a_stop_need_not_wait_for_the_pause() -> None:
    breaker = open_breaker()

    breaker.probe_now(100.0)

    assert breaker.admits(100.0)
