"""Whoever wants to hear of a call's end hears of it once, and cannot get in its way."""

from __future__ import annotations

import pytest

from gateway.calls import Call, Facts
from gateway.endings import BUG, COMPLETE
from gateway.metrics import Metrics
from gateway.routing import Route
from gateway.token_usage import TokenUsage


@pytest.fixture
def call():
    facts = Facts(
        request_id="r",
        endpoint="/v1/x",
        route=Route("a:m", "a", "m"),
        stream=False,
        price=None,
        user_id="ann",
    )
    return Call(facts, None, Metrics(), usage=TokenUsage(3, 4, 7), is_whole=True)


def test_the_end_is_told_once_with_the_row(call) -> None:
    heard = []
    call.on_finish.extend((heard.append, heard.append))

    call.finish(COMPLETE)
    call.finish(BUG)

    assert [(row.status, row.total_tokens, row.user_id) for row in heard] == [("success", 7, "ann")] * 2


def test_whoever_fails_to_hear_is_logged_and_keeps_nobody_else_from_it(call, caplog) -> None:
    def deaf(row):
        raise RuntimeError

    heard = []
    call.on_finish.extend((deaf, heard.append))

    call.finish(COMPLETE)

    assert call.is_finished and len(heard) == 1
    assert [record.getMessage() for record in caplog.records] == ["finish_not_heard"]
