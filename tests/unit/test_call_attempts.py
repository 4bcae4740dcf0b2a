"""What a call knows of its attempts: which row tells of which, and what all of them cost."""

from __future__ import annotations

from decimal import Decimal
from uuid import uuid4

import pytest

from backends import NotDurable, Place
from gateway.calls import Call, Facts
from gateway.endings import COMPLETE, provider_ending
from gateway.metrics import Metrics
from gateway.pricing import Price
from gateway.providers.base import Answer, Event
from gateway.providers.errors import ProviderTimeout
from gateway.routing import Route
from gateway.token_usage import TokenUsage

CHEAP, DEAR = Price(Decimal(1), Decimal(10)), Price(Decimal(100), Decimal(1000))
LATE = provider_ending(ProviderTimeout("The provider did not answer in time."))
USE = TokenUsage(3, 4, 7)


class Writer:
    """Gives places and keeps what is put into them; ``lost``: the ids of rows that cannot be stored."""

    def __init__(self):
        self.rows = []
        self.lost = set()

    def place(self):
        return Place(uuid4(), self)

    def accept(self, row, row_id):
        self.rows.append(row)
        return row_id

    async def settled(self, receipt):
        if receipt in self.lost:
            raise NotDurable("abandoned")

    def release(self, row_id):
        raise AssertionError("a place that was used")


@pytest.fixture
def writer():
    return Writer()


@pytest.fixture
def call(writer):
    facts = Facts(
        request_id="r",
        endpoint="/v1/x",
        route=Route("fast", "p", "a"),
        stream=True,
        price=CHEAP,
        user_id="ann",
        tags="{}",
    )
    return Call(facts, writer.place(), Metrics())


def turned(call):
    call.turn_to(Route("fast", "q", "b"), DEAR)
    return call


def test_a_hidden_attempt_has_its_own_row_under_its_own_id(call, writer) -> None:
    place = writer.place()
    call.absorb(place, LATE)
    turned(call).see_answer(Answer(200, b"{}", "application/json", USE))
    call.finish(COMPLETE)

    hidden, own = writer.rows
    assert (hidden.id, own.id) == (place.id, call.usage_id)
    assert (hidden.status, hidden.end_reason, hidden.status_code) == ("absorbed", "timeout", 504)
    assert (own.status, own.end_reason, own.status_code) == ("success", "complete", 200)
    assert [(row.route, row.provider, row.model) for row in writer.rows] == [
        ("fast", "p", "a"),
        ("fast", "q", "b"),
    ]
    for name in ("request_id", "timestamp", "user_id", "tags", "stream", "endpoint"):
        assert getattr(hidden, name) == getattr(own, name)


def test_what_a_hidden_attempt_used_is_its_own_and_the_call_costs_both(call, writer) -> None:
    spent = []
    call.on_finish.append(lambda row: spent.append(call.spent(row)))
    call.see(Event(b"", USE))
    call.absorb(writer.place(), LATE)
    turned(call).see_answer(Answer(200, b"{}", "application/json", USE))
    call.finish(COMPLETE)

    hidden, own = writer.rows
    assert (hidden.usage_source, hidden.total_tokens, hidden.cost) == ("partial", 7, Decimal("0.000043"))
    assert (own.usage_source, own.total_tokens, own.cost) == ("provider", 7, Decimal("0.0043"))
    assert own.ttft_ms is None and hidden.ttft_ms is not None
    assert spent == [hidden.cost + own.cost]


def test_a_call_that_ends_between_two_attempts_knows_no_use(call, writer) -> None:
    call.see(Event(b"", USE))
    call.absorb(writer.place(), LATE)
    call.finish(LATE)

    assert [row.total_tokens for row in writer.rows] == [7, None]
    assert call.spent(writer.rows[1]) == Decimal("0.000043")


def test_nothing_is_spent_where_nothing_is_known(call) -> None:
    call.finish(LATE)

    assert call.spent(call.intent()) is None


async def test_a_call_is_durable_when_all_its_rows_are(call, writer) -> None:
    place = writer.place()
    call.absorb(place, LATE)
    call.finish(COMPLETE)
    await call.durable()

    writer.lost = {place.id}
    with pytest.raises(NotDurable):
        await call.durable()


def test_a_hidden_attempt_is_no_request_and_its_use_counts(call, writer) -> None:
    call.see(Event(b"", USE))
    call.absorb(writer.place(), LATE)

    def metric(name, **labels):
        return call.observer.registry.get_sample_value(name, labels)

    absorbed = {"provider": "p", "error_code": "provider_timeout"}
    assert metric("gateway_absorbed_attempts_total", **absorbed) == 1
    assert metric("gateway_tokens_total", provider="p", model="a", type="completion") == 4
    assert metric("gateway_cost_usd_total", provider="p", model="a") == pytest.approx(0.000043)
    assert metric("gateway_requests_total", endpoint="/v1/x", provider="p", status_code="504") is None
