"""Changing and removing, and what of it reaches the accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ...errors import StoreConflict
from ...store.records import ApiKey, Budget, PriceEntry, User
from ..cases.base import bounded
from .base import StoreCases, add_spender, budget_id, found
from .examples import (
    CREATED_AT,
    NESTED,
    make_api_key,
    make_budget,
    make_full_api_key,
    make_price,
    make_user,
)

NO_KEY: dict[str, Any] = {
    "name": None,
    "expires_at": None,
    "revoked_at": None,
    "previous_hash": None,
    "previous_expires_at": None,
    "allowed_models": None,
    "rate_limit_rpm": None,
    "metadata": {},
}


class ChangeCases(StoreCases):
    async def test_fields_are_changed_by_name_and_the_others_stay(self) -> None:
        key = make_full_api_key()
        changes: dict[str, Any] = {
            "name": "new",
            "revoked_at": CREATED_AT + timedelta(days=2),
            "allowed_models": ("a", "b"),
            "rate_limit_tpm": 5,
            "metadata": {"new": NESTED},
        }

        async with self.opened() as store:
            await store.add(make_user())
            await store.add(key)
            answers = [await store.update(ApiKey, key.id, each) for each in (changes, NO_KEY, {})]

            assert answers[0] == replace(key, **changes)
            assert answers[1] == answers[2] == replace(key, **{**changes, **NO_KEY})
            assert await store.get(ApiKey, key.id) == answers[2]

    async def test_a_price_is_changed_digit_for_digit(self) -> None:
        price = make_price()
        changes = {"input_per_million": Decimal("0.10"), "per_request": Decimal("1.000")}

        async with self.opened() as store:
            await store.add(price)
            changed = await store.update(PriceEntry, price.id, changes)

        assert changed == replace(price, **changes)  # type: ignore[arg-type]
        assert str(changed.input_per_million) == "0.10"

    async def test_changing_what_is_not_there_gives_none(self) -> None:
        async with self.opened() as store:
            assert await store.update(User, "nobody", {"alias": "x"}) is None
            assert await store.update(Budget, "nobody", {"limit_nano": 1}) is None
            assert await store.list(User) == []

    async def test_changes_at_the_same_time_do_not_undo_each_other(self) -> None:
        wanted: dict[str, Any] = {"alias": "x", "blocked": True, "rate_limit_rpm": 1, "metadata": {"a": 1}}

        async with self.opened() as store:
            await store.add(make_user())
            changes = [store.update(User, "user-1", {name: value}) for name, value in wanted.items()]
            await asyncio.gather(*(bounded(each) for each in changes))
            user = await found(store, User, "user-1")

        assert {name: getattr(user, name) for name in wanted} == wanted

    async def test_a_name_that_is_no_field_is_an_error_of_the_caller(self) -> None:
        async with self.opened() as store:
            await store.add(make_user())
            for changes in ({"nickname": "x"}, {"id": "other"}, {"alias = 'x' --": "x"}):
                with pytest.raises(ValueError):
                    await store.update(User, "user-1", changes)
            with pytest.raises(ValueError):
                await store.list(User, where={"1 = 1 OR alias": "x"})

            assert (await found(store, User, "user-1")).alias is None

    async def test_a_contradiction_is_refused_and_changes_nothing(self) -> None:
        first, second = make_api_key(), make_api_key(name="second")
        cheap = make_price()
        dear = make_price(model=cheap.model, effective_at=cheap.effective_at + timedelta(days=1))

        async with self.opened() as store:
            await store.add(make_user(alias="old"))
            for record in (first, second, cheap, dear):
                await store.add(record)
            taken = {"name": "new", "secret_hash": first.secret_hash}
            await _refused(store.update(ApiKey, second.id, taken), "secret_hash")
            early = {"effective_at": cheap.effective_at}
            await _refused(store.update(PriceEntry, dear.id, early), "effective_at")
            missing = {"alias": "new", "budget_id": "nowhere"}
            await _refused(store.update(User, "user-1", missing), "budget_id")

            assert await store.get(ApiKey, second.id) == second
            assert await store.get(PriceEntry, dear.id) == dear
            assert (await found(store, User, "user-1")).alias == "old"

    async def test_a_record_does_not_contradict_itself(self) -> None:
        key, price = make_api_key(), make_price()

        async with self.opened() as store:
            await store.add(make_user())
            await store.add(key)
            await store.add(price)

            assert await store.update(ApiKey, key.id, {"secret_hash": key.secret_hash}) == key
            assert await store.update(PriceEntry, price.id, {"effective_at": price.effective_at}) == price

    async def test_budgets_and_prices_can_be_removed_once(self) -> None:
        price = make_price()

        async with self.opened() as store:
            await store.add(make_budget())
            await store.add(price)
            answers = [
                await store.remove(kind, id)
                for kind, id in [(Budget, "budget-1"), (PriceEntry, price.id)] * 2
            ]

            assert answers == [True, True, False, False]
            assert await store.get(Budget, "budget-1") is None
            assert await store.list(PriceEntry) == []

    async def test_a_budget_that_a_user_has_is_not_removed(self) -> None:
        async with self.opened() as store:
            user = await add_spender(store)
            await _refused(store.remove(Budget, budget_id(user)), "id")
            assert await store.get(Budget, budget_id(user))
            await store.update(User, "user-1", {"deleted_at": CREATED_AT})

            assert await store.remove(Budget, budget_id(user)) is True
            assert (await found(store, User, "user-1")).deleted_at == CREATED_AT


async def _refused(call: Awaitable[Any], field: str) -> None:
    with pytest.raises(StoreConflict) as caught:
        await bounded(call)
    assert caught.value.field == field
