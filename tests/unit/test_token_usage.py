"""Counts that a provider reports are read without trust."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.token_usage import TokenUsage, read_usage

GARBAGE = [None, True, False, -1, 2**63, 10**400, 1.0, 1.5, "7", [], {}, float("nan")]


def test_every_count_of_a_full_report_is_read() -> None:
    usage = read_usage(
        {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "total_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 5},
        }
    )

    assert usage == TokenUsage(10, 20, 30, 4, 5)


def test_embeddings_report_no_completion() -> None:
    assert read_usage({"prompt_tokens": 8, "total_tokens": 8}) == TokenUsage(8, None, 8)


def test_zero_and_the_largest_count_are_counts() -> None:
    assert read_usage({"prompt_tokens": 0, "completion_tokens": 2**63 - 1}) == TokenUsage(0, 2**63 - 1)


@pytest.mark.parametrize("value", GARBAGE)
def test_what_is_no_count_is_unknown_and_spoils_no_other(value: Any) -> None:
    usage = read_usage({"prompt_tokens": value, "completion_tokens": 3, "prompt_tokens_details": value})

    assert usage == TokenUsage(None, 3)


@pytest.mark.parametrize("value", [*GARBAGE, "usage", {"prompt_tokens": None}, {"other": 1}])
def test_a_report_without_any_count_is_none(value: Any) -> None:
    assert read_usage(value) is None


@given(
    st.dictionaries(
        st.sampled_from(["prompt_tokens", "prompt_tokens_details"]),
        st.from_type(type).flatmap(st.from_type) | st.integers(),
    )
)
def test_no_report_raises(report: dict[str, Any]) -> None:
    read_usage(report)


def test_of_two_reports_the_last_known_count_holds() -> None:
    first, second = TokenUsage(10, 1, None, 4), TokenUsage(10, 20, 30, None, 0)

    assert first.updated(second) == TokenUsage(10, 20, 30, 4, 0)
