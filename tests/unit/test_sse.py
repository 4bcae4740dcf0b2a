"""Events are cut out of a stream at any chunking without changing a byte."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.sse import EventTooLarge, SseParser, event_data

LINES = st.sampled_from(
    [b"", b"data: a", b"data:b", b"data", b": comment", b"event: x", b"id: 1", b"data: \xc3\xa9"]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=12).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in zip(edges, edges[1:], strict=False)]


def parsed(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    parser = SseParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events, parser.close()


def data_by_the_book(stream: bytes) -> list[bytes]:
    """The data of each dispatched event, straight from the format's rules, line by line."""
    dispatched: list[bytes] = []
    data: list[bytes] = []
    for line in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]:
        name, _, value = line.partition(b":")
        if not line and data:
            dispatched.append(b"\n".join(data))
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" "))
    return dispatched


@given(STREAMS, st.lists(st.integers(0, 200), max_size=8))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [10])
@example(b"data: a\n\r\ndata: b\r\r\ndata\n\n", [9, 19, 20])
def test_any_chunking_gives_the_same_events(stream: bytes, places: list[int]) -> None:
    assert parsed(cut(stream, places)) == parsed([stream])


@given(
    st.lists(LINES, max_size=12).map(lambda lines: b"".join(line + b"\n" for line in lines)),
    st.lists(st.integers(0, 200), max_size=8),
)
@example(b"data: a\n\n\n\n\ndata: b\n\n", [])
def test_any_chunking_gives_the_same_events_of_the_usual_stream(stream: bytes, places: list[int]) -> None:
    by_byte = parsed([bytes([each]) for each in stream])

    assert parsed([stream]) == parsed(cut(stream, places)) == by_byte


@given(STREAMS)
def test_byte_by_byte_gives_the_same_events(stream: bytes) -> None:
    assert parsed([bytes([each]) for each in stream]) == parsed([stream])


@given(STREAMS, st.lists(st.integers(0, 200), max_size=8))
def test_the_events_joined_are_the_stream(stream: bytes, places: list[int]) -> None:
    events, rest = parsed(cut(stream, places))

    joined = b"".join(events) + rest
    assert stream.startswith(joined) and not stream[len(joined) :].strip(b"\r\n")


@given(STREAMS)
def test_the_data_of_the_events_is_what_the_format_says(stream: bytes) -> None:
    stream += b"\n\n"  # so that the last event is whole
    events, _ = parsed([stream])

    assert [data for event in events if _has_data(event) for data in [event_data(event)]] == data_by_the_book(
        stream
    )


def _has_data(event: bytes) -> bool:
    return any(line.partition(b":")[0] == b"data" for line in event.splitlines())


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_each_line_end_ends_lines_and_events(end: bytes) -> None:
    first, second = b"data: a" + end + b"data: b" + end + end, b": alive" + end + end

    events, rest = parsed([first + second + b"x"])

    assert (events, rest) == ([first, second], b"x")
    assert [event_data(event) for event in events] == [b"a\nb", b""]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_an_event_is_given_as_soon_as_its_empty_line_is_there(end: bytes) -> None:
    assert SseParser().feed(b"data: a" + end) == [b"data: a" + end]


def test_half_an_event_is_left_over() -> None:
    assert parsed([b"data: a\n\nda", b"ta: b\n"]) == ([b"data: a\n\n"], b"data: b\n")


def test_empty_lines_at_the_end_leave_nothing_over() -> None:
    assert parsed([b"data: a\n\n", b"\n"]) == ([b"data: a\n\n"], b"")


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data:  two spaces\n\n", b" two spaces"),
        (b"data:none\n\n", b"none"),
        (b"data\ndata\n\n", b"\n"),
        (b"database: x\n\n", b""),
        (b'event: m\r\ndata: {"a":\r\ndata: 1}\r\n\r\n', b'{"a":\n1}'),
    ],
)
def test_data_lines_are_joined(event: bytes, data: bytes) -> None:
    assert event_data(event) == data


@pytest.mark.parametrize(
    "chunks", [[b"data: 123456789\n\n"], [b"data: 1234567890"], [b"data: 1234", b"567890"]]
)
def test_an_event_over_the_bound_is_refused(chunks: list[bytes]) -> None:
    parser = SseParser(max_event_bytes=15)

    with pytest.raises(EventTooLarge):
        for chunk in chunks:
            parser.feed(chunk)


def test_an_event_at_the_bound_is_given() -> None:
    assert SseParser(max_event_bytes=15).feed(b"data: 1234567\n\n") == [b"data: 1234567\n\n"]


def test_the_events_before_one_over_the_bound_are_given_first() -> None:
    parser = SseParser(max_event_bytes=15)

    assert parser.feed(b"data: a\n\ndata: 1234567890\n\ndata: b\n\n") == [b"data: a\n\n"]
    with pytest.raises(EventTooLarge):
        parser.feed(b"")
    with pytest.raises(EventTooLarge):
        parser.close()
