"""Costs are exact, rounded once, half-even, to nine places."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pricing import Price, cost, foreseen
from gateway.token_usage import TokenUsage

MINI = Price(Decimal("0.15"), Decimal("0.60"), Decimal("0.075"))
COUNTS = st.integers(0, 2**63 - 1)
PRICES = st.builds(
    lambda digits, places: Decimal(f"{digits % 10 ** (places + 6)}E-{places}"),
    st.integers(0, 10**36),
    st.integers(0, 30),
)


def test_cost_adds_prompt_and_completion() -> None:
    assert cost(MINI, TokenUsage(1000, 500)) == Decimal("0.000450000")


def test_cached_tokens_are_part_of_the_prompt_and_cost_their_own_price() -> None:
    assert cost(MINI, TokenUsage(1000, 0, 1000, 400)) == Decimal("0.000120000")


def test_cached_tokens_cost_as_others_without_a_price_of_their_own() -> None:
    price = Price(Decimal(2), Decimal(4))

    assert cost(price, TokenUsage(1000, 0, 1000, 400)) == cost(price, TokenUsage(1000, 0))


def test_a_cached_price_of_zero_is_a_price() -> None:
    assert cost(Price(Decimal(2), Decimal(4), Decimal(0)), TokenUsage(1000, 0, None, 1000)) == 0


def test_more_cached_tokens_than_the_prompt_has_count_as_the_whole_prompt() -> None:
    assert cost(MINI, TokenUsage(100, 0, 100, 10**6)) == cost(MINI, TokenUsage(100, 0, 100, 100))


def test_reasoning_tokens_are_part_of_the_completion_and_cost_their_own_price() -> None:
    price = Price(Decimal(0), Decimal(2), reasoning_per_million=Decimal(3))

    assert cost(price, TokenUsage(0, 1000, 1000, None, 400)) == Decimal("0.002400000")


def test_reasoning_tokens_cost_as_output_without_a_price_of_their_own() -> None:
    assert cost(MINI, TokenUsage(0, 1000, None, None, 400)) == cost(MINI, TokenUsage(0, 1000))


def test_more_reasoning_tokens_than_the_completion_has_count_as_the_whole_completion() -> None:
    price = Price(Decimal(0), Decimal(2), reasoning_per_million=Decimal(3))

    assert cost(price, TokenUsage(0, 10, None, None, 10**6)) == cost(price, TokenUsage(0, 10, None, None, 10))


def test_images_and_the_call_itself_have_prices_of_their_own() -> None:
    price = Price(Decimal(0), Decimal(0), per_image=Decimal("0.04"), per_request=Decimal("0.001"))

    assert cost(price, TokenUsage(10, 10)) == Decimal("0.001")
    assert cost(price, TokenUsage(10, 10), 2) == Decimal("0.081")


def test_tokens_that_cost_nothing_need_not_be_counted() -> None:
    price = Price(Decimal(0), Decimal(0), per_image=Decimal("0.04"))
    by_input = Price(Decimal(1), Decimal(0))

    assert cost(price, TokenUsage(), 2) == Decimal("0.08")
    assert cost(by_input, TokenUsage(), 2) is None
    assert cost(by_input, TokenUsage(1_000_000)) == Decimal(1)


def test_images_are_foreseen() -> None:
    price = Price(Decimal(0), Decimal(0), per_image=Decimal("0.04"), per_request=Decimal("0.001"))

    assert foreseen(price, 10, 10, 3) == Decimal("0.121")


@pytest.mark.parametrize(
    ("per_million", "expected"),
    [
        ("0.0005", "0.000000000"),
        ("0.0015", "0.000000002"),
        ("0.0025", "0.000000002"),
        ("0.00050001", "0.000000001"),
    ],
)
def test_a_half_is_rounded_to_the_even_digit(per_million: str, expected: str) -> None:
    assert cost(Price(Decimal(per_million), Decimal(0)), TokenUsage(1, 0)) == Decimal(expected)


def test_a_cost_has_nine_places_also_when_they_are_zero() -> None:
    assert str(cost(Price(Decimal("1E+6"), Decimal(0)), TokenUsage(3, 0))) == "3.000000000"


def test_embeddings_cost_their_prompt() -> None:
    assert cost(MINI, TokenUsage(1000, None, 1000)) == Decimal("0.000150000")


@pytest.mark.parametrize(
    "usage",
    [TokenUsage(), TokenUsage(10), TokenUsage(None, 10), TokenUsage(10, None, 9), TokenUsage(None, None, 10)],
)
def test_cost_is_unknown_where_a_count_is(usage: TokenUsage) -> None:
    assert cost(MINI, usage) is None


@given(
    st.builds(Price, PRICES, PRICES, st.none() | PRICES, st.none() | PRICES, PRICES, PRICES),
    st.builds(TokenUsage, COUNTS, COUNTS, st.none(), st.none() | COUNTS, st.none() | COUNTS),
    st.integers(0, 1000),
)
def test_cost_is_the_exact_sum_rounded_once(price: Price, usage: TokenUsage, images: int) -> None:
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    per_million = parted(prompt, usage.cached_tokens, price.input_per_million, price.cached_input_per_million)
    per_million += parted(
        completion, usage.reasoning_tokens, price.output_per_million, price.reasoning_per_million
    )
    exact = per_million / 10**6 + images * Fraction(price.per_image) + Fraction(price.per_request)

    result = cost(price, usage, images)

    assert result is not None and Fraction(result) == Fraction(round(exact * 10**9), 10**9)


def parted(count: int, part: int | None, price: Decimal, price_of_part: Decimal | None) -> Fraction:
    known = min(part or 0, count)
    return (count - known) * Fraction(price) + known * Fraction(
        price if price_of_part is None else price_of_part
    )


@given(st.builds(Price, PRICES, PRICES, PRICES, PRICES, PRICES, PRICES), COUNTS, COUNTS, COUNTS)
def test_a_call_that_takes_what_was_foreseen_costs_no_more(
    price: Price, prompt: int, output: int, reasoning: int
) -> None:
    exact = foreseen(price, prompt, output)

    assert Fraction(exact) >= prompt * Fraction(price.input_per_million) / 10**6
    usage = TokenUsage(prompt, output, None, None, reasoning)
    result = cost(price, usage)
    assert result is not None and result <= exact + Decimal("1e-9")


@pytest.mark.parametrize(
    "price", ["-1", "-1E-9", "1000000.1", "NaN", "sNaN", "Infinity", "1E-31", "1.0E-500"]
)
def test_a_price_that_cannot_be_reckoned_with_is_refused(price: str) -> None:
    for place in range(6):
        prices = [Decimal(1)] * 6
        prices[place] = Decimal(price)
        with pytest.raises(ValueError, match="is no price"):
            Price(*prices)


@pytest.mark.parametrize("price", ["0", "-0", "0E+90", "1E+6", "1000000.000", "1E-30"])
def test_any_other_price_is_reckoned_with(price: str) -> None:
    assert cost(Price(Decimal(price), Decimal(0)), TokenUsage(1, 1)) is not None
