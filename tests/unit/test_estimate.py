from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.estimate import body_tokens, estimate, prompt_tokens, text_characters
from gateway.token_usage import TokenUsage


def event(delta, **members):
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    payload = {"id": "c", "model": "content", "choices": [choice], "usage": None, **members}
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_four_characters_are_a_token_and_what_is_left_is_one_more(characters, tokens):
    assert estimate(7, characters) == TokenUsage(7, tokens, 7 + tokens)


@pytest.mark.parametrize(
    ("messages", "tokens"),
    [
        ([{"role": "user", "content": "x" * 8}], 2),
        ([{"content": "xxx"}, {"content": "xx"}], 2),
        ([{"content": "漢字かな"}], 1),
        ([{"content": [{"type": "text", "text": "xxxx"}, {"type": "text", "text": "x"}]}], 2),
        ([{"content": [{"type": "image_url", "image_url": {"url": "data:" + "x" * 9999}}]}], 0),
        ([{"role": "assistant", "content": None, "tool_calls": []}], 0),
        (["xxxx", 5, None, [], {"content": {"text": "x"}}, {"content": [None, {"text": 5}]}], 0),
        ("xxxx", 0),
        (None, 0),
    ],
)
def test_the_texts_of_messages_count_and_nothing_else(messages, tokens):
    assert prompt_tokens({"messages": messages}) == tokens


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ("xxxxx", 2),
        (["xxxx", "xxxx"], 2),
        ([1, 2, 3], 3),
        ([[1, 2], [3]], 3),
        ([None, {}], 0),
        ({}, 0),
        (None, 0),
    ],
)
def test_an_input_is_texts_or_tokens_already(asked, tokens):
    assert prompt_tokens({"input": asked}) == tokens


@pytest.mark.parametrize(
    ("delta", "characters"),
    [
        ({"content": "hello"}, 5),
        ({"role": "assistant", "content": ""}, 0),
        ({"content": None}, 0),
        ({}, 0),
        ({"reasoning_content": "hmm"}, 3),
        ({"refusal": "no"}, 2),
        ({"content": "a", "refusal": None, "reasoning_content": "bc"}, 3),
        ({"tool_calls": [{"function": {"name": "f", "arguments": '{"content": "x"}'}}]}, 16),
        ({"content": '"content": "x" \\'}, 16),
        ({"content": "é漢👩"}, 3),
        ({"content": '\n\t\x00\\"'}, 5),
    ],
)
def test_the_text_of_an_event_is_counted_in_characters(delta, characters):
    assert text_characters(event(delta)) == characters


def test_text_counts_the_same_however_it_is_written():
    assert text_characters('data: {"delta":{"content"\n:\t"é👩"}}\n\n'.encode()) == 2
    assert text_characters(rb'data: {"delta":{"content":"\u00e9\ud83d\udc69"}}') == 2


def test_a_plain_answer_is_counted_as_its_events_would_be():
    message = {"role": "assistant", "content": "hello", "tool_calls": [{"function": {"arguments": "{}"}}]}
    answer = {"choices": [{"message": message}, {"message": {"content": "you"}}]}

    assert text_characters(json.dumps(answer).encode()) == 10


def test_embeddings_have_no_text():
    assert (
        text_characters(json.dumps({"data": [{"embedding": [0.1, 0.2]}, {"embedding": "AAAA"}]}).encode())
        == 0
    )


@pytest.mark.parametrize(
    "raw",
    [b"", b": comment\n\n", b"data: [DONE]\n\n", b'data: {"content": "no end', b'"content": "\\x"', b"\xff"],
)
def test_what_is_no_event_of_text_does_no_harm(raw):
    assert text_characters(raw) <= 2


@given(st.text(), st.booleans())
def test_any_text_has_as_many_characters_as_it_has(text, ascii):
    raw = json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=ascii)
    assert text_characters(raw.encode()) == len(text)


@given(st.binary())
def test_no_bytes_are_a_reason_to_fail(raw):
    assert text_characters(b'{"delta": {"content": "' + raw) >= 0


TURN = {"role": "user", "content": ""}


@pytest.mark.parametrize(
    ("members", "tokens"),
    [
        ({}, 0),
        ({"model": "x" * 400}, 0),
        ({"system": "x" * 400}, 100),
        ({"system": [{"type": "text", "text": "x" * 388}]}, 100),
        ({"messages": [TURN]}, 4),
        ({"tools": [{"name": "f" * 396}]}, 100),
        ({"tools": [{"a": {"b": [1, None, "x" * 398]}}]}, 100),
        ({"system": [{"type": "image", "source": {"type": "base64", "data": "x" * 400}}]}, 0),
        ({"system": [{"type": "thinking", "thinking": "x", "signature": "x" * 400}]}, 0),
    ],
)
def test_the_tokens_of_a_body_are_those_of_all_that_is_written_in_it(members, tokens):
    assert body_tokens(members, ("system", "messages", "tools")) == tokens


def test_a_body_of_any_depth_is_read():
    deep = "x" * 4
    for _ in range(100_000):
        deep = [deep]

    assert body_tokens({"system": deep}, ("system",)) == 1
    while isinstance(deep, list):  # taken apart level by level: to free it at once would be too deep
        deep = deep[0]
