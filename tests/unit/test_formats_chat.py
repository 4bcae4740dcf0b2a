"""What one event of a stream of chat completions means."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.formats import CHAT
from gateway.providers.base import Event
from gateway.token_usage import TokenUsage

COUNTS = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(payload: object) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


@pytest.mark.parametrize(
    "raw",
    [
        event({"choices": [{"delta": {"content": "hi"}}]}),
        event({"choices": [{"delta": {"content": "hi"}}], "usage": None}),
        event({"choices": [{"delta": {"content": '{"usage": {"prompt_tokens": 9}, "error": "x"} [DONE]'}}]}),
        event({"choices": [{"delta": {}}], "error": None}),
        event({"choices": [], "prompt_filter_results": []}),
        event({"choices": [], "usage": None}),
        event([1, {"usage": COUNTS}]),
        b": alive\n\n",
        b'data: {"usage": {"prompt_tokens": \n\n',
        b'data: {"usage": ' + b"[" * 100_000 + b"\n\n",
        b"\n\n",
    ],
)
def test_an_event_without_counts_is_passed_on_as_it_is(raw: bytes) -> None:
    assert CHAT.read_event(raw, "") == Event(raw)


def test_counts_beside_choices_are_read_and_the_event_is_not_withheld() -> None:
    raw = event({"choices": [{"delta": {}}], "usage": COUNTS})

    assert CHAT.read_event(raw, "") == Event(raw, TokenUsage(3, 2, 5))


@pytest.mark.parametrize("space", [b"", b" ", b"\t"])
def test_an_event_of_counts_alone_is_marked(space: bytes) -> None:
    raw = b'data:{"choices":[],"usage"' + space + b":" + space + b'{"prompt_tokens":3}}\r\n\r\n'

    assert CHAT.read_event(raw, "") == Event(raw, TokenUsage(3), is_usage_only=True)


def test_counts_are_read_from_data_over_several_lines() -> None:
    raw = b'data: {"choices": [],\ndata: "usage": {"prompt_tokens": 3}}\n\n'

    assert CHAT.read_event(raw, "").usage == TokenUsage(3)


@pytest.mark.parametrize("raw", [b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b": x\rdata: [DONE] \r\r"])
def test_the_last_event_is_marked(raw: bytes) -> None:
    assert CHAT.read_event(raw, "") == Event(raw, is_done=True)


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "no more sk-0123456789abc"}},
        {"error": "no more sk-0123456789abc", "choices": []},
    ],
)
def test_an_error_is_marked_with_its_redacted_text(payload: object) -> None:
    raw = event(payload)

    assert CHAT.read_event(raw, "") == Event(raw, is_error=True, error_message="no more [redacted]")


def test_an_error_beside_choices_is_no_failure() -> None:
    assert not CHAT.read_event(event({"error": {"message": "x"}, "choices": [{}]}), "").is_error


NAMES = st.sampled_from(["usage", "error", "choices", 'a"usage'])
VALUES = st.recursive(
    st.none()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["[DONE]", '"usage"', '"error": 1', "é"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
SPACES = st.sampled_from(["", " ", "\t", "\n"])


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """An event of a JSON object whose names may come twice and be written in any way."""
    members = draw(st.lists(st.tuples(NAMES, VALUES | st.just(COUNTS)), max_size=4))
    texts = []
    for name, value in members:
        written = json.dumps(name)
        if draw(st.booleans()):
            written = written.replace("s", "\\u0073").replace("r", "\\u0072")
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        texts.append(f"{written}{draw(SPACES)}:{draw(SPACES)}{text}")
    data = "{" + ",".join(texts) + "}"
    return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"


@settings(max_examples=500)
@given(events())
@example(b": x\ndata:[DONE]\n\n")
@example(b"data: [DONE]\t\n: usage\n\n")
@example(event({"choices": [], "usage": None})[:-3] + b', "us\\u0061ge": {"prompt_tokens": 1}}\n\n')
def test_what_is_passed_on_unread_had_nothing_to_tell(raw: bytes) -> None:
    quick = CHAT.read_event(raw, "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.formats.chat._may_tell", lambda raw: True)
        assert quick == CHAT.read_event(raw, "")


@given(st.binary(max_size=40), st.sampled_from([b"", b'"usage"', b'"error":1', b"[DONE]"]))
def test_no_event_raises(noise: bytes, mark: bytes) -> None:
    raw = b"data: {" + mark + noise + b"}\n\n"

    assert CHAT.read_event(raw, "").raw == raw
