"""What a call is expected to cost, who has room for it, and that what is held is let go exactly once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from backends import MAX_NANO_USD, Budget, Claim, Settlement, StoreUnavailable, User, Verdict
from backends.store.memory import MemoryStore
from gateway.money.budgets import DisabledBudgets, Hold, Order, ReservingBudgets, expected_nano
from gateway.money.settlements import Settlements
from gateway.pricing import Price

NOW = datetime.now(UTC)
PRICE = Price(Decimal("0.15"), Decimal("0.60"))
LIMIT_NANO = 10_000_000
LONG_S = 20.0
COUNTS = st.integers(0, 10**7)
PRICES = st.decimals(0, 10**6, allow_nan=False, places=12)


def order(spender: User | None = None, **more: Any) -> Order:
    facts = {"price": PRICE, "prompt_tokens": 100, "output_tokens": 50, "choices": 1, **more}
    return Order(row_id=uuid7(), made_at=NOW, spender=spender, **facts)


# --- what a call is expected to cost


def test_a_call_is_expected_to_take_its_prompt_and_all_that_it_asks_for() -> None:
    assert expected_nano(order(), 1024) == 100 * 150 + 50 * 600


def test_a_call_that_says_nothing_is_expected_to_take_the_default() -> None:
    assert expected_nano(order(output_tokens=None), 1024) == 100 * 150 + 1024 * 600


def test_each_choice_is_expected_to_take_as_much() -> None:
    assert expected_nano(order(choices=3), 1024) == 100 * 150 + 3 * 50 * 600


def test_a_call_that_asks_for_no_output_is_expected_to_cost_its_prompt() -> None:
    assert expected_nano(order(output_tokens=0), 1024) == 100 * 150


def test_the_call_itself_may_have_a_price() -> None:
    price = Price(Decimal(0), Decimal(0), per_request=Decimal("0.001"))

    assert expected_nano(order(price=price), 1024) == 1_000_000


def test_a_call_without_a_price_is_expected_to_cost_nothing() -> None:
    assert expected_nano(order(price=None), 1024) == 0


def test_an_expectation_is_rounded_up() -> None:
    price = Price(Decimal("0.0001"), Decimal(0))

    assert expected_nano(order(price=price, prompt_tokens=1), 1024) == 1


def test_an_expectation_has_a_bound() -> None:
    price = Price(Decimal(10**6), Decimal(10**6))

    assert expected_nano(order(price=price, output_tokens=10**30), 1024) == MAX_NANO_USD


@given(PRICES, PRICES, st.none() | PRICES, PRICES, COUNTS, st.none() | COUNTS, st.integers(1, 128))
def test_an_expectation_is_the_exact_sum_rounded_up_once(
    input_price: Decimal,
    output: Decimal,
    reasoning: Decimal | None,
    per_request: Decimal,
    prompt_tokens: int,
    output_tokens: int | None,
    choices: int,
) -> None:
    price = Price(input_price, output, None, reasoning, Decimal(0), per_request)
    asked = order(price=price, prompt_tokens=prompt_tokens, output_tokens=output_tokens, choices=choices)

    wanted = (1024 if output_tokens is None else output_tokens) * choices
    dearer = max(Fraction(output), Fraction(reasoning or 0))
    exact = (prompt_tokens * Fraction(input_price) + wanted * dearer) / 10**6 + Fraction(per_request)
    assert expected_nano(asked, 1024) == min(MAX_NANO_USD, ceil(exact * 10**9))


# --- holding


class Recording(MemoryStore):
    """Notes every claim and settlement; ``trouble`` is raised by the next ``reserve``, after it was done."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[Claim] = []
        self.trouble: BaseException | None = None

    async def reserve(self, claim: Claim) -> Verdict:
        self.claims.append(claim)
        verdict = await super().reserve(claim)
        if self.trouble is not None:
            raise self.trouble
        return verdict


class Put(Settlements):
    """Keeps what is put."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store, 900)
        self.all: list[Settlement] = []

    def put(self, settlement: Settlement) -> None:
        self.all.append(settlement)


@pytest.fixture
async def store() -> Recording:
    store = Recording()
    await store.add(Budget(id="b", limit_nano=LIMIT_NANO, created_at=NOW))
    await store.add(User(id="budgeted", budget_id="b", created_at=NOW))
    await store.add(User(id="free", created_at=NOW))
    return store


@pytest.fixture
def settlements(store: Recording) -> Put:
    return Put(store)


@pytest.fixture
def refused() -> list[None]:
    return []


@pytest.fixture
def budgets(store: Recording, settlements: Put, refused: list[None]) -> ReservingBudgets:
    return ReservingBudgets(
        store,
        settlements,
        ttl_s=60,
        default_output_tokens=1024,
        on_refused=lambda: refused.append(None),
    )


async def user(store: Recording, id: str = "budgeted") -> User:
    found = await store.get(User, id)
    assert found is not None
    return found


async def test_a_call_of_a_budgeted_user_is_held_under_the_id_of_its_row(
    store: Recording, budgets: ReservingBudgets
) -> None:
    asked = order(await user(store))

    hold = await budgets.hold(asked)

    (claim,) = store.claims
    assert hold.refusal is None
    assert (claim.id, claim.user_id, claim.amount_nano) == (asked.row_id, "budgeted", 45_000)
    assert claim.made_at <= NOW < claim.made_at + timedelta(milliseconds=1)
    assert claim.expires_at == claim.made_at + timedelta(seconds=60)
    assert (await user(store)).reserved_nano == 45_000


async def test_a_hold_is_settled_once(store: Recording, budgets: ReservingBudgets, settlements: Put) -> None:
    hold = await budgets.hold(order(await user(store)))

    hold.settle(Decimal("0.000000007"))
    hold.settle(Decimal(9))
    hold.settle(None)

    assert settlements.all == [Settlement(claim=store.claims[0], cost_nano=7)]


@pytest.mark.parametrize("id", [None, "free"])
async def test_nothing_is_asked_for_who_has_no_budget(
    store: Recording, budgets: ReservingBudgets, settlements: Put, id: str | None
) -> None:
    hold = await budgets.hold(order(await user(store, id) if id else None))
    hold.settle(Decimal(1))

    assert (hold.refusal, store.claims, settlements.all) == (None, [], [])


async def test_a_call_that_the_budget_has_no_room_for_is_refused(
    store: Recording, budgets: ReservingBudgets, settlements: Put, refused: list[None]
) -> None:
    hold = await budgets.hold(order(await user(store), output_tokens=10**6))
    hold.settle(None)

    assert hold.refusal is not None
    assert (hold.refusal.status, hold.refusal.code) == (403, "budget_exceeded")
    assert (len(refused), settlements.all) == (1, [])


async def test_an_account_at_its_limit_refuses_also_what_has_no_price(
    store: Recording, budgets: ReservingBudgets
) -> None:
    first = await budgets.hold(order(await user(store), price=None))
    assert first.refusal is None
    await store.rebuild_spent(await user(store), LIMIT_NANO)

    second = await budgets.hold(order(await user(store), price=None))

    assert second.refusal is not None and second.refusal.code == "budget_exceeded"


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"blocked": True}, "user_blocked"), ({"deleted_at": NOW}, "user_deleted")],
)
async def test_the_store_knows_of_the_user_what_a_cache_does_not(
    store: Recording, budgets: ReservingBudgets, changes: dict[str, Any], code: str
) -> None:
    known = await user(store)
    await store.update(User, "budgeted", changes)

    hold = await budgets.hold(order(known))

    assert hold.refusal is not None and (hold.refusal.status, hold.refusal.code) == (403, code)


@pytest.mark.parametrize("trouble", [StoreUnavailable("down"), asyncio.CancelledError()])
async def test_what_may_be_held_though_nobody_heard_is_let_go(
    store: Recording, budgets: ReservingBudgets, settlements: Put, trouble: BaseException
) -> None:
    store.trouble = trouble

    with pytest.raises(type(trouble)):
        await budgets.hold(order(await user(store)))

    assert settlements.all == [Settlement(claim=store.claims[0], cost_nano=0)]


async def test_what_is_held_after_its_call_was_cancelled_is_let_go(
    store: Recording, budgets: ReservingBudgets, monkeypatch: pytest.MonkeyPatch
) -> None:
    settlements = Settlements(store, 900)
    monkeypatch.setattr(budgets, "_settlements", settlements)
    let_go, let_go_again = settlements.let_go, asyncio.Event()

    def note(claim: Claim) -> None:
        let_go(claim)
        if under_way[0].done():
            let_go_again.set()

    monkeypatch.setattr(settlements, "let_go", note)
    reserve, asked, go = store.reserve, asyncio.Event(), asyncio.Event()
    under_way: list[asyncio.Future[Verdict]] = []

    async def in_the_server(claim: Claim) -> Verdict:
        asked.set()
        await go.wait()
        return await reserve(claim)

    async def slow(claim: Claim) -> Verdict:  # a server does not notice that nobody waits any more
        under_way.append(asyncio.ensure_future(in_the_server(claim)))
        return await asyncio.shield(under_way[0])

    monkeypatch.setattr(store, "reserve", slow)
    settlements.start()
    holding = asyncio.ensure_future(budgets.hold(order(await user(store))))
    await asked.wait()
    holding.cancel()
    await asyncio.wait({holding})
    await settlements.settled()

    go.set()
    await asyncio.wait(under_way)
    assert (await user(store)).reserved_nano > 0
    await let_go_again.wait()
    await settlements.stop(LONG_S)
    assert (await user(store)).reserved_nano == 0


async def test_disabled_budgets_hold_nothing(store: Recording) -> None:
    hold: Hold = await DisabledBudgets().hold(order(await user(store)))
    hold.settle(Decimal(1))

    assert hold.refusal is None
    assert (await user(store)).reserved_nano == 0
