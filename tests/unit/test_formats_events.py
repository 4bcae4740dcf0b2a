"""What holds for the events of every format."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.formats import BY_PATH
from gateway.sse import SseParser

STREAMED = [path for path, format in BY_PATH.items() if format.has_stream]
NAMES = st.sampled_from(
    ["", "error", "response.completed", "message_start", "message_delta", "image_generation.completed"]
)


def objects(values):
    names = ["usage", "response", "message", "error", "type", "input_tokens", "output_tokens"]
    return st.dictionaries(st.sampled_from(names), values, max_size=4)


NOISE = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | objects(inner)
)


@pytest.mark.parametrize("path", STREAMED)
@given(NAMES, objects(NOISE) | st.binary(max_size=30))
def test_no_event_raises_and_each_keeps_its_bytes(path, name, carried) -> None:
    data = carried if isinstance(carried, bytes) else json.dumps(carried).encode()
    raw = f"event: {name}\n".encode() + b"data: " + data.replace(b"\n", b"").replace(b"\r", b"") + b"\n\n"

    event = BY_PATH[path].read_event(raw, "")

    assert event.raw == raw
    counts = event.usage.summed() if event.usage else None
    assert counts is None or counts.total_tokens is None or 0 <= counts.total_tokens < 2**63


@pytest.mark.parametrize("path", STREAMED)
def test_an_event_that_tells_of_nothing_is_only_passed_on(path) -> None:
    for raw in (b": a comment\n\n", b"event: ping\ndata: {}\n\n", b"data: 5\n\n", b"\n\n"):
        event = BY_PATH[path].read_event(raw, "")
        assert (event.usage, event.is_done, event.is_error, event.is_usage_only) == (
            None,
            False,
            False,
            False,
        )


@pytest.mark.parametrize("path", STREAMED)
def test_what_the_gateway_says_in_a_stream_is_whole_events(path) -> None:
    format = BY_PATH[path]
    told = format.keep_alive + format.error_event(GatewayError("No\n\nmore.", "code"))

    assert len(SseParser().feed(told)) == 2
    assert format.read_event(format.error_event(GatewayError("No.", "code")), "").is_error
    assert not format.read_event(format.keep_alive, "").is_error


@pytest.mark.parametrize("name", ["response.completed", "message_start"])
def test_a_name_may_stand_in_what_is_carried_alone(name) -> None:
    path = "/v1/responses" if name.startswith("response") else "/v1/messages"
    usage = {"usage": {"input_tokens": 3, "output_tokens": 4}}
    carried = json.dumps({"type": name, "response": usage, "message": usage})

    event = BY_PATH[path].read_event(f"data: {carried}\n\n".encode(), "")

    assert event.usage is not None and event.usage.completion_tokens == 4
