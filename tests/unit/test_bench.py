"""What `make bench` makes of its figures: a wrong ratio would praise or blame the wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from bench.cores import Cores, on
from bench.figures import Rate, Ratio, against, is_saturated, nearest_rank, paired
from bench.generator import AnswerFailed, Connection, request_bytes
from bench.latency import overhead_ms
from bench.ours import Gateway
from bench.provider import ANSWER, FRAMES, LAST_FRAME, STREAM_HEAD
from bench.servers import Server
from bench.soak import parted
from bench.table import (
    Section,
    at_least,
    below,
    from_plain,
    goals,
    markdown,
    not_measured,
    number,
    page,
    plain,
)
from bench.variants import stop
from bench.workers import allowed


def rate(per_s: float, per_cpu_s: float = 0.0, *, busy: float = 1.0, load_busy: float = 0.5) -> Rate:
    return Rate(per_s, per_cpu_s or per_s, busy, load_busy, rss_bytes=0)


# --- figures


def test_a_slow_round_that_met_both_does_not_move_their_ratio() -> None:
    assert paired([80, 8, 80], [100, 10, 100]) == pytest.approx(0.8)


def test_servers_whose_cores_were_full_are_compared_by_calls_per_second() -> None:
    assert against([rate(75, 50)], [rate(100, 100)]) == Ratio(0.75, "calls/s")


def test_a_server_that_was_held_back_is_compared_by_its_cpu_time() -> None:
    held_back = [rate(75, 300, busy=0.4)]

    assert not is_saturated(held_back)
    assert against(held_back, [rate(100, 100)]) == Ratio(3.0, "calls per CPU second")
    assert against([rate(100, 100)], held_back).by == "calls per CPU second"


@pytest.mark.parametrize(("part", "value"), [(0.5, 2), (0.75, 3), (0.99, 4), (1.0, 4)])
def test_a_quantile_is_the_smallest_value_with_so_many_at_or_below_it(part: float, value: int) -> None:
    assert nearest_rank([1, 2, 3, 4], part) == value


def test_two_workers_are_allowed_less_when_the_load_needs_their_cores() -> None:
    alone = [rate(1000, busy=1.0, load_busy=0.0)]
    with_load = [rate(1000, busy=1.0, load_busy=0.25)]

    assert allowed(alone, cores=2) == 2.0
    assert allowed(with_load, cores=2) == pytest.approx(1.6)
    assert allowed(with_load, cores=8) == 2.0


def test_a_part_of_a_short_soak_has_a_value() -> None:
    assert parted([1.0, 2.0, 3.0, 4.0], 0.5, 1.0) == [3.0, 4.0]
    assert parted([7.0], 0.8, 1.0) == [7.0]


# --- cores


def test_the_server_that_is_measured_has_a_core_to_itself_where_there_are_two() -> None:
    assert Cores.split([0, 1]) == Cores(frozenset({1}), frozenset({0}))
    assert not Cores.split([0, 1, 2]).are_shared
    assert Cores.split([3]).are_shared


def test_a_command_is_kept_on_its_cores() -> None:
    assert on([2, 1], "serve", "--port", "0") == ("taskset", "--cpu-list", "1,2", "serve", "--port", "0")


# --- the table


def test_a_promise_is_kept_at_its_very_bound_from_below_and_broken_at_it_from_above() -> None:
    assert at_least("calls", 0.75, 0.75).is_met
    assert not at_least("calls", 0.75, 0.749).is_met
    assert below("overhead", 1.0, 0.99).is_met
    assert not below("overhead", 1.0, 1.0).is_met


def test_the_table_says_what_is_kept_what_is_not_and_what_was_not_measured() -> None:
    lines = [
        at_least("a", 2, 3),
        below("b", 5, 9.87, unit=" ms", why="slow"),
        not_measured("c", ">= 1", "left out"),
    ]

    assert markdown(goals(lines)).splitlines()[2:] == [
        "| a | >= 2 | 3 | yes |  |",
        "| b | < 5 ms | 9.87 ms | **no** | slow |",
        "| c | >= 1 | not measured | - | left out |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (4.0, "4")]
)
def test_a_number_is_as_short_as_its_size_allows(value: float, text: str) -> None:
    assert number(value) == text


def test_the_page_tells_which_part_is_of_another_commit() -> None:
    sections = [Section("calls", commit="new"), Section("soak", [at_least("x", 1, 2)], commit="old")]

    text = page({"commit": "new"}, sections)

    assert "- commit: new" in text
    assert "measured at old" in text and "measured at new" not in text
    assert "| x | >= 1 | 2 | yes |  |" in text


def test_a_part_that_was_kept_reads_as_it_was_written() -> None:
    section = Section("soak", [at_least("x", 1, 2)], [goals([below("y", 1, 2)])], {"rss": [1.0]}, "abc")

    kept = from_plain(json.loads(json.dumps(plain(section))))

    assert page({}, [kept]) == page({}, [section])
    assert kept.raw == section.raw


# --- the wire


class Wire:
    """One connection of the generator, fed by hand."""

    def __init__(self) -> None:
        self.answers = 0
        self.failures: list[AnswerFailed] = []
        self.connection = Connection(self._answered, self.failures.append)
        self.connection.is_idle = False

    def _answered(self, _: Any) -> None:
        self.answers += 1

    def feed(self, *pieces: bytes) -> int:
        for piece in pieces:
            self.connection.data_received(piece)
        return self.answers


def by_bytes(text: bytes) -> list[bytes]:
    return [text[place : place + 1] for place in range(len(text))]


def whole(text: bytes) -> list[bytes]:
    return [text]


@pytest.mark.parametrize("cut", [whole, by_bytes])
def test_the_end_of_an_answer_is_found_however_it_arrives(cut: Callable[[bytes], list[bytes]]) -> None:
    stream = b"".join([STREAM_HEAD, *FRAMES, LAST_FRAME])
    wire = Wire()

    assert wire.feed(*cut(ANSWER[:-1])) == 0
    assert wire.feed(ANSWER[-1:]) == 1
    assert wire.feed(*cut(stream[:-1])) == 1
    assert wire.feed(stream[-1:]) == 2
    assert not wire.failures


def test_an_answer_that_is_no_200_is_a_failure_that_tells_it() -> None:
    wire = Wire()

    assert wire.feed(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy") == 0
    assert "503" in str(wire.failures[0]) and "busy" in str(wire.failures[0])


def test_a_connection_that_ends_within_an_answer_is_a_failure() -> None:
    wire = Wire()
    wire.feed(ANSWER[:-5])
    wire.connection.connection_lost(None)

    assert len(wire.failures) == 1


def test_a_request_has_its_own_headers_and_length() -> None:
    request = request_bytes("http://127.0.0.1:9/v1/x", b"{}", {"Authorization": "Bearer k"})

    head, _, body = request.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /v1/x HTTP/1.1"
    assert {b"Host: 127.0.0.1:9", b"Authorization: Bearer k", b"Content-Length: 2"} <= set(
        head.split(b"\r\n")
    )
    assert body == b"{}"


def test_what_the_provider_took_is_no_overhead() -> None:
    assert overhead_ms(0.2015, b'{"id": "chatcmpl-0000200500"}') == pytest.approx(1.0)
    with pytest.raises(ValueError, match="not the provider's answer"):
        overhead_ms(0.2, b"{}")


# --- the rows behind a figure


class Stopped:
    """A child that left so."""

    def __init__(self, status: int, **report: int) -> None:
        self._status, self._report = status, {"committed": 0, "duplicates": 0, "spooled": 0, **report}

    def stop(self) -> None:
        pass

    async def exit_status(self, timeout_s: float) -> int:
        return self._status

    async def said(self, event: str, timeout_s: float) -> dict[str, int]:
        assert event == "shutdown_report"
        return self._report


@pytest.mark.parametrize(
    ("child", "is_counted"),
    [
        (Stopped(0, committed=7), True),
        (Stopped(0, committed=6, duplicates=1), True),
        (Stopped(0, committed=6), False),
        (Stopped(0, committed=6, spooled=1), False),
        (Stopped(0, committed=8), False),
        (Stopped(3, committed=7), False),
    ],
)
async def test_a_gateway_that_wrote_fewer_rows_than_it_answered_calls_has_no_figures(
    child: Any, is_counted: bool, tmp_path: Path
) -> None:
    gateway = Gateway(Server("gateway, postgres", "http://127.0.0.1:1", 1), child, tmp_path)

    with nullcontext() if is_counted else pytest.raises(AssertionError, match="gateway, postgres"):
        await stop(gateway, called=7)
