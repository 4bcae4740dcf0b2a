"""No minute, wherever it begins, holds more calls or tokens than its limit, and none is refused that fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letting_in import Hand, make_api_key, make_user
from msgspec import structs

from backends.testing.records import make_record
from gateway.access.limits import Bound, RateLimits, bounds_of
from gateway.errors import RateLimited


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def limits(hand):
    return RateLimits(hand)


def requests(limit, holder="key:k"):
    return Bound(holder, "requests", limit)


def tokens(limit, holder="key:k"):
    return Bound(holder, "tokens", limit)


def refusal(limits, bounds, estimate=1) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        limits.admit(bounds, estimate)
    return caught.value


# --- whose limits


def test_the_limits_of_a_call_are_those_of_its_key_and_of_its_user() -> None:
    key = make_api_key(id="k", rate_limit_rpm=1, rate_limit_tpm=2)
    user = make_user(rate_limit_rpm=3)

    assert bounds_of(key, user) == [requests(1), tokens(2), requests(3, "user:ann")]
    assert bounds_of(None, user) == [requests(3, "user:ann")]
    assert bounds_of(make_api_key(), make_user()) == bounds_of(None, None) == []


def test_a_call_without_limits_is_let_in_and_says_nothing_of_them(limits) -> None:
    admission = limits.admit([], 10**9)

    admission.settle(5)
    assert admission.headers() == {}
    assert len(limits) == 0


# --- calls


def test_calls_beyond_the_limit_wait_until_the_first_of_them_is_a_minute_old(limits, hand) -> None:
    bound = [requests(2)]
    limits.admit(bound, 1)
    hand.now = 10.0
    limits.admit(bound, 1)
    hand.now = 30.5

    error = refusal(limits, bound)

    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert error.headers["Retry-After"] == "30"
    hand.now = 59.999
    assert refusal(limits, bound).headers["Retry-After"] == "1"
    hand.now = 60.0
    limits.admit(bound, 1)
    assert refusal(limits, bound).headers["Retry-After"] == "10"


def test_a_refused_call_counts_for_nothing(limits, hand) -> None:
    bounds = [requests(1), tokens(100)]
    limits.admit(bounds, 10)
    for hand.now in range(1, 60):
        refusal(limits, bounds, 10)
    hand.now = 60

    assert limits.admit(bounds, 100).headers()["x-ratelimit-remaining-tokens"] == "0"


def test_a_call_that_one_of_its_limits_refuses_is_not_counted_by_the_others(limits) -> None:
    limits.admit([requests(1, "user:ann")], 1)

    for _ in range(5):
        refusal(limits, [requests(3), requests(1, "user:ann")])

    assert limits.admit([requests(3)], 1).headers()["x-ratelimit-remaining-requests"] == "2"


def test_nobody_is_told_to_wait_for_longer_than_a_minute(limits, hand) -> None:
    hand.now = 16.9  # and 60 is 76.9, which is further from it than 60 as floats go
    bound = [requests(1)]
    admission = limits.admit(bound, 1)

    assert refusal(limits, bound).headers["Retry-After"] == "60"
    assert admission.headers()["x-ratelimit-reset-requests"] == "60s"


def test_two_keys_of_a_user_share_the_users_limit_and_not_their_own(limits) -> None:
    user = requests(3, "user:ann")
    for holder in ("key:a", "key:b", "key:a"):
        limits.admit([requests(2, holder), user], 1)

    assert refusal(limits, [requests(2, "key:b"), user])
    assert limits.admit([requests(2, "key:b")], 1)


def test_a_limit_of_nothing_lets_nobody_in_and_names_no_time(limits) -> None:
    error = refusal(limits, [requests(0)])

    assert "Retry-After" not in error.headers


# --- tokens


def test_a_call_is_counted_with_its_estimate_until_it_has_ended_and_then_exactly(limits) -> None:
    bound = [tokens(100)]
    admission = limits.admit(bound, 90)
    assert refusal(limits, bound, 20).headers["x-ratelimit-remaining-tokens"] == "10"

    admission.settle(7)

    assert admission.headers()["x-ratelimit-remaining-tokens"] == "93"
    limits.admit(bound, 93)
    assert refusal(limits, bound, 1)


def test_a_call_that_took_more_than_its_estimate_keeps_others_out(limits, hand) -> None:
    bound = [tokens(100)]
    limits.admit(bound, 10).settle(250)
    hand.now = 59.0

    error = refusal(limits, bound, 1)

    assert (error.headers["x-ratelimit-remaining-tokens"], error.headers["Retry-After"]) == ("0", "1")
    hand.now = 60.0
    limits.admit(bound, 100)


def test_a_call_that_is_larger_than_the_limit_is_told_so_and_no_time(limits) -> None:
    error = refusal(limits, [tokens(100)], 101)

    assert "101 tokens" in error.message and "100" in error.message
    assert "Retry-After" not in error.headers
    limits.admit([tokens(100)], 100)


def test_a_call_that_ends_after_its_minute_changes_nothing(limits, hand) -> None:
    bound = [tokens(100)]
    long_call = limits.admit(bound, 50)
    hand.now = 61.0
    limits.admit(bound, 50)

    long_call.settle(10_000)

    assert limits.admit(bound, 50).headers()["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.parametrize(
    ("row", "remaining"),
    [
        ({"status": "success", "total_tokens": 30}, "70"),
        ({"status": "cancelled", "total_tokens": 30}, "70"),
        ({"status": "cancelled", "total_tokens": None}, "40"),
        ({"status": "error", "total_tokens": None}, "100"),
        ({"status": "rejected", "total_tokens": None}, "100"),
        ({"status": "success", "total_tokens": None}, "100"),
        ({"status": "success", "total_tokens": None, "prompt_tokens": 20, "completion_tokens": 10}, "70"),
        ({"status": "cancelled", "total_tokens": None, "prompt_tokens": 30}, "70"),
    ],
)
def test_the_row_says_how_many_tokens_a_call_took(limits, row, remaining) -> None:
    admission = limits.admit([tokens(100)], 60)

    unknown = {"prompt_tokens": None, "completion_tokens": None}
    admission.hear(structs.replace(make_record(), **{**unknown, **row}))

    assert admission.headers()["x-ratelimit-remaining-tokens"] == remaining


# --- headers


def test_the_headers_tell_of_the_limit_that_leaves_the_least(limits, hand) -> None:
    bounds = [requests(10), tokens(1000), requests(5, "user:ann"), tokens(2000, "user:ann")]
    limits.admit(bounds, 100)
    hand.now = 20.5

    headers = limits.admit(bounds, 200).headers()

    assert headers == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "60s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "700",
        "x-ratelimit-reset-tokens": "60s",
    }
    hand.now = 80.0
    assert limits.admit([requests(10)], 1).headers()["x-ratelimit-remaining-requests"] == "8"


def test_a_refusal_has_the_same_headers(limits, hand) -> None:
    bounds = [requests(1), tokens(50)]
    limits.admit(bounds, 20)
    hand.now = 15.2

    assert refusal(limits, bounds, 10).headers == {
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "45s",
        "x-ratelimit-limit-tokens": "50",
        "x-ratelimit-remaining-tokens": "30",
        "x-ratelimit-reset-tokens": "45s",
        "Retry-After": "45",
    }


def test_a_limit_that_was_lowered_holds_for_what_was_used_before(limits) -> None:
    for _ in range(5):
        limits.admit([requests(10)], 1)

    assert refusal(limits, [requests(2)]).headers["x-ratelimit-remaining-requests"] == "0"


# --- memory


def test_windows_in_which_nothing_counts_are_dropped(limits, hand) -> None:
    for number in range(1000):
        limits.admit([requests(5, f"key:{number}")], 1)
    hand.now = 61.0
    limits.admit([requests(5, "key:0")], 1)

    assert len(limits) == 1


# --- at random

ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.125, 1.0, 7.5, 29.75, 60.0)),
        st.integers(0, 60),
        st.none() | st.integers(0, 90),
    ),
    max_size=60,
)


@given(ARRIVALS, st.integers(1, 5), st.integers(1, 120))
def test_every_minute_keeps_its_limits_and_whoever_waits_as_told_is_let_in(arrivals, rpm, tpm) -> None:
    """Against a list of all that was let in."""
    hand = Hand()
    limits = RateLimits(hand)
    bounds = [requests(rpm), tokens(tpm, "user:u")]
    taken: list[list[float]] = []
    for pause_s, estimate, actual in arrivals:
        hand.now += pause_s
        recent = [each for each in taken if each[0] > hand.now - 60]
        used = sum(each[1] for each in recent)
        fits = len(recent) < rpm and used + estimate <= tpm
        try:
            admission = limits.admit(bounds, estimate)
        except RateLimited as error:
            assert not fits
            if estimate <= tpm:
                hand.now += int(error.headers["Retry-After"]) - 1
                refusal(limits, bounds, estimate)
                hand.now += 1
                limits.admit(bounds, estimate)
                taken.append([hand.now, estimate])
            continue
        assert fits
        taken.append([hand.now, estimate])
        if actual is not None:
            admission.settle(actual)
            taken[-1][1] = actual
        headers = admission.headers()
        left = tpm - sum(each[1] for each in taken if each[0] > hand.now - 60)
        assert int(headers["x-ratelimit-remaining-tokens"]) == max(0, left)
        assert 0 <= int(headers["x-ratelimit-reset-requests"].rstrip("s")) <= 60
    for at, _ in taken:
        assert len([each for each in taken if at - 60 < each[0] <= at]) <= rpm
