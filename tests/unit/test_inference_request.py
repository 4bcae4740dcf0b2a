"""What a call may take, as far as its body says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.formats import CHAT, EMBEDDINGS
from gateway.inference_request import InferenceRequest


def chat(**members: Any) -> InferenceRequest:
    messages = [{"role": "user", "content": "x" * 40}]
    return CHAT.parse(json.dumps({"model": "a:m", "messages": messages, **members}).encode())


@pytest.mark.parametrize(
    ("members", "output_tokens", "choices", "most"),
    [
        ({}, None, 1, 1010),
        ({"max_tokens": 50}, 50, 1, 60),
        ({"max_completion_tokens": 5, "max_tokens": 50}, 50, 1, 60),
        ({"max_completion_tokens": 50, "max_tokens": 5}, 50, 1, 60),
        ({"max_tokens": 50.0, "n": 2.0}, 50, 2, 110),
        ({"max_completion_tokens": None, "max_tokens": 50}, 50, 1, 60),
        ({"max_tokens": 0}, 0, 1, 10),
        ({"max_tokens": 50, "n": 3}, 50, 3, 160),
        ({"n": 2}, None, 2, 2010),
        ({"max_tokens": 10**400}, 10_000_000, 1, 10_000_010),
    ],
)
def test_the_most_that_a_call_may_take_is_its_prompt_and_all_its_choices(
    members, output_tokens, choices, most
) -> None:
    asked = chat(**members)

    assert (asked.output_tokens, asked.choices) == (output_tokens, choices)
    assert asked.most_tokens(default_output_tokens=1000) == most


@pytest.mark.parametrize("value", [-1, True, "50", 1.5, [], {}, None])
def test_what_is_no_count_is_left_for_the_provider_to_refuse(value) -> None:
    asked = chat(max_tokens=value, n=value)

    assert (asked.output_tokens, asked.choices) == (None, 1)


def test_embeddings_have_no_output() -> None:
    asked = EMBEDDINGS.parse(b'{"model": "a:m", "input": "12345678", "max_tokens": 9, "n": 5}')

    assert (asked.output_tokens, asked.choices, asked.most_tokens(1000)) == (0, 1, 2)


@pytest.mark.parametrize(("members", "user"), [({}, None), ({"user": None}, None), ({"user": "ann"}, "ann")])
def test_the_body_may_name_a_user(members, user) -> None:
    assert chat(**members).user == user
