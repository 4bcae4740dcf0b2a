"""Which price is in force for a call, and what happens while the store says nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import PriceEntry, StoreUnavailable
from backends.store.memory import MemoryStore
from gateway.money import price_book as module
from gateway.money.price_book import PriceBook
from gateway.pricing import Price

T0 = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = "openai:gpt"
CONFIGURED = Price(Decimal(1), Decimal(1))
LONG_S = 20.0


def hours(count: float) -> datetime:
    return T0 + timedelta(hours=count)


def entry(input_price: str, at: datetime, model: str = MODEL, **more: Any) -> PriceEntry:
    return PriceEntry(
        id=f"{model} {at.isoformat()}",
        model=model,
        effective_at=at,
        input_per_million=Decimal(input_price),
        output_per_million=Decimal(0),
        created_at=T0,
        **more,
    )


class Listed(MemoryStore):
    """Does not answer while ``is_down``; ``reads`` counts the questions."""

    def __init__(self) -> None:
        super().__init__()
        self.is_down = False
        self.reads = 0
        self.read = asyncio.Event()

    async def list(self, *question: Any, **more: Any) -> Sequence[Any]:
        self.reads += 1
        self.read.set()
        if self.is_down:
            raise StoreUnavailable("down")
        return await super().list(*question, **more)


Make = Callable[..., PriceBook]


@pytest.fixture
def store() -> Listed:
    return Listed()


@pytest.fixture
def book(store: Listed) -> Make:
    def make(configured: bool = True, **settings: Any) -> PriceBook:
        given = {"refresh_s": 0.001, "patience_s": LONG_S, **settings}
        return PriceBook({MODEL: CONFIGURED} if configured else {}, store, **given)

    return make


def input_price(book: PriceBook, at: datetime, name: str = MODEL) -> Decimal | None:
    price = book.price_at(name, at)
    return None if price is None else price.input_per_million


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(LONG_S):
        return await awaitable


async def test_the_configurations_price_is_in_force_since_ever(book: Make) -> None:
    assert input_price(book(), datetime.min.replace(tzinfo=UTC)) == 1
    assert book().price_at("openai:other", T0) is None


async def test_a_price_of_the_store_takes_over_at_its_own_time(store: Listed, book: Make) -> None:
    await store.add(entry("2", hours(1)))
    await store.add(entry("3", hours(2)))
    prices = book()
    await prices.refresh()

    just_before = hours(1) - timedelta(microseconds=1)
    times = (hours(0), just_before, hours(1), hours(1.5), hours(2), hours(9))
    assert [input_price(prices, at) for at in times] == [1, 1, 2, 2, 3, 3]


@given(st.permutations(range(8)), st.floats(-1, 9, allow_nan=False))
async def test_the_newest_price_that_is_not_later_than_the_call_wins(order: list[int], hour: float) -> None:
    store = Listed()
    for each in order:
        await store.add(entry(str(each), hours(each)))
    prices = PriceBook({}, store, refresh_s=1, patience_s=1)
    await prices.refresh()

    expected = [each for each in range(8) if hours(each) <= hours(hour)]
    assert input_price(prices, hours(hour)) == (expected[-1] if expected else None)


async def test_every_page_of_prices_is_read(
    store: Listed, book: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_ENTRIES", 2)
    for each in range(5):
        await store.add(entry(str(each), T0, f"m:{each}"))
    prices = book()

    await prices.refresh()

    assert [input_price(prices, T0, f"m:{each}") for each in range(5)] == [0, 1, 2, 3, 4]


async def test_every_part_of_a_price_is_read(store: Listed, book: Make) -> None:
    whole = {"cached_input_per_million": 3, "reasoning_per_million": 4, "per_image": 5, "per_request": 6}
    await store.add(entry("1", T0, **{name: Decimal(value) for name, value in whole.items()}))
    prices = book()

    await prices.refresh()

    assert prices.price_at(MODEL, T0) == Price(*map(Decimal, (1, 0, 3, 4, 5, 6)))


async def test_a_change_is_in_force_when_refresh_returns(store: Listed, book: Make) -> None:
    prices = book()
    await prices.refresh()
    await store.add(entry("2", T0))

    await prices.refresh()
    assert input_price(prices, T0) == 2

    await store.remove(PriceEntry, entry("2", T0).id)
    await prices.refresh()
    assert input_price(prices, T0) == 1


async def test_prices_are_read_again_and_again_and_asking_for_one_asks_nobody(
    store: Listed, book: Make
) -> None:
    prices = book()
    async with prices.fresh():
        await soon(prices.ready())
        await store.add(entry("2", T0))
        while input_price(prices, T0) != 2:
            store.read.clear()
            await soon(store.read.wait())

    reads = store.reads
    assert input_price(prices, T0) == 2
    assert store.reads == reads


async def test_a_store_that_is_down_leaves_the_prices_as_they_were(
    store: Listed, book: Make, caplog: pytest.LogCaptureFixture
) -> None:
    await store.add(entry("2", T0))
    prices = book()
    async with prices.fresh():
        await soon(prices.ready())
        store.is_down = True
        for _ in range(3):
            store.read.clear()
            await soon(store.read.wait())
        with pytest.raises(StoreUnavailable):
            await prices.refresh()

        assert input_price(prices, T0) == 2
        await soon(prices.ready())
    assert [record.message for record in caplog.records] == ["prices_stale"], "said once"


async def test_a_call_waits_for_the_first_reading(store: Listed, book: Make) -> None:
    store.is_down = True
    prices = book()
    async with prices.fresh():
        waiting = asyncio.ensure_future(prices.ready())
        await soon(store.read.wait())
        assert not waiting.done()

        store.is_down = False
        await soon(waiting)


async def test_it_does_not_wait_for_ever(store: Listed, book: Make) -> None:
    store.is_down = True
    prices = book(patience_s=0.01)
    async with prices.fresh():
        with pytest.raises(StoreUnavailable):
            await soon(prices.ready())


async def test_a_price_that_nobody_can_reckon_with_leaves_the_others(
    store: Listed, book: Make, caplog: pytest.LogCaptureFixture
) -> None:
    await store.add(entry("-1", hours(1)))
    await store.add(entry("2", T0))
    prices = book()

    await prices.refresh()

    assert input_price(prices, hours(2)) == 2
    assert (caplog.records[0].levelno, caplog.records[0].message) == (logging.WARNING, "price_unusable")


async def test_a_default_price_is_the_last_resort(store: Listed, book: Make) -> None:
    default = Price(Decimal(9), Decimal(9))
    await store.add(entry("2", hours(1), "openai:stored"))
    prices = book(defaults=lambda name, at: default)
    await prices.refresh()

    assert input_price(prices, T0) == 1
    assert input_price(prices, T0, "openai:other") == 9
    assert input_price(prices, T0, "openai:stored") == 9
    assert input_price(prices, hours(1), "openai:stored") == 2


async def test_a_driver_that_does_not_heed_a_cancel_does_not_hold_up_the_end(
    store: Listed, book: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_S", 0.01)
    gate, entered = asyncio.Event(), asyncio.Event()

    async def deaf(*question: Any, **more: Any) -> Sequence[Any]:
        entered.set()
        while not gate.is_set():
            with suppress(asyncio.CancelledError):
                await gate.wait()
        raise asyncio.CancelledError

    monkeypatch.setattr(store, "list", deaf)

    async def opened_and_closed() -> None:
        async with book().fresh():
            await entered.wait()

    await soon(opened_and_closed())
    gate.set()
