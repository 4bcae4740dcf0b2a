"""Records come back as they went in, and contradictions are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from ...errors import StoreConflict
from ...store.contract import Store
from ...store.records import ApiKey, Budget, PriceEntry, Record, User
from ..cases.base import bounded
from .base import StoreCases, found
from .examples import (
    CREATED_AT,
    NESTED,
    make_api_key,
    make_budget,
    make_full_api_key,
    make_price,
    make_user,
    now,
    storable_texts,
)


class RecordCases(StoreCases):
    async def test_a_key_comes_back_as_it_was(self) -> None:
        keys = [make_api_key(), make_full_api_key(), make_full_api_key(allowed_models=())]

        async with self.opened() as store:
            await store.add(make_user())
            await self._check_kept(store, *keys)

    async def test_a_user_comes_back_as_it_was(self) -> None:
        bare = make_user("bare")
        full = make_user(
            "full",
            alias="Zoë 漢",
            blocked=True,
            rate_limit_rpm=0,
            rate_limit_tpm=2**40,
            metadata=NESTED,
            deleted_at=CREATED_AT + timedelta(days=1),
        )

        async with self.opened() as store:
            for user in (bare, full):
                await store.add(user)
                kept = await found(store, User, user.id)
                _check_same(replace(kept, period_started_at=None), user)

    async def test_a_budget_comes_back_as_it_was(self) -> None:
        budgets = [
            make_budget("bare", 0),
            make_budget("full", 10**18, name="Team é", reset_every="1y", reset_every_s=365 * 86400),
        ]

        async with self.opened() as store:
            await self._check_kept(store, *budgets)

    async def test_a_price_keeps_every_digit(self) -> None:
        full = make_price(
            input_per_million=Decimal("0.000000000000000001"),
            output_per_million=Decimal("123456789012.123456789012"),
            cached_input_per_million=Decimal("2.50"),
            reasoning_per_million=Decimal("0"),
            per_image=Decimal("0.040"),
            per_request=Decimal("100"),
        )

        async with self.opened() as store:
            await self._check_kept(store, make_price(), full)

    async def test_any_text_comes_back_as_it_was(self) -> None:
        users = [
            make_user(f"user {number} {text}", alias=text, metadata={text: text})
            for number, text in enumerate(storable_texts)
        ]

        async with self.opened() as store:
            for user in users:
                await store.add(user)
                _check_same(replace(await found(store, User, user.id), period_started_at=None), user)

    async def test_times_are_kept_to_the_millisecond(self) -> None:
        keys = [
            make_api_key(created_at=CREATED_AT.replace(microsecond=millisecond * 1000))
            for millisecond in (0, 1, 9, 10, 99, 500, 998, 999)
        ]
        keys += [make_api_key(created_at=CREATED_AT.replace(year=year)) for year in (1971, 9998)]

        async with self.opened() as store:
            await self._check_kept(store, *keys)

    async def test_what_is_not_there_is_none(self) -> None:
        async with self.opened() as store:
            for kind in (ApiKey, User, Budget, PriceEntry):
                assert await bounded(store.get(kind, "nobody")) is None

    async def test_the_kinds_have_ids_of_their_own(self) -> None:
        async with self.opened() as store:
            await store.add(make_user("same"))
            await self._check_kept(
                store, make_budget("same"), make_price(id="same"), make_api_key(id="same", user_id="same")
            )

    async def test_a_users_account_is_made_from_the_budget_whatever_its_fields_say(self) -> None:
        async with self.opened() as store:
            await store.add(make_budget("budget-1", 70, reset_every_s=60))
            await store.add(
                make_user(budget_id="budget-1", limit_nano=1, spent_nano=5, reserved_nano=7, reset_every_s=1)
            )
            user = await found(store, User, "user-1")

        assert (user.limit_nano, user.reset_every_s) == (70, 60)
        assert (user.spent_nano, user.reserved_nano) == (0, 0)
        assert user.period_started_at and user.period_ends_at
        assert abs(user.period_started_at - now()) < timedelta(minutes=1)
        assert user.period_started_at.microsecond % 1000 == 0
        assert user.period_ends_at - user.period_started_at == timedelta(seconds=60)

    async def test_a_user_without_a_budget_has_no_limit(self) -> None:
        async with self.opened() as store:
            await store.add(make_user())
            user = await found(store, User, "user-1")

        assert (user.limit_nano, user.reset_every_s, user.period_ends_at) == (None, None, None)
        assert user.period_started_at is not None

    async def test_a_second_record_with_an_id_is_refused_and_changes_nothing(self) -> None:
        key, price = make_api_key(name="first"), make_price()

        async with self.opened() as store:
            await store.add(make_user(alias="first"))
            for first in (key, price, make_budget(name="first")):
                await store.add(first)
            for second in (
                make_api_key(id=key.id, name="second"),
                make_user(alias="second"),
                make_budget(name="second"),
                make_price(id=price.id),
            ):
                await _refused(store, second, "id")
            assert await store.get(ApiKey, key.id) == key
            assert await store.get(PriceEntry, price.id) == price
            assert (await found(store, User, "user-1")).alias == "first"
            assert (await found(store, Budget, "budget-1")).name == "first"

    async def test_a_second_key_with_a_secret_is_refused(self) -> None:
        key = make_api_key()

        async with self.opened() as store:
            await store.add(make_user())
            await store.add(key)
            await _refused(store, make_api_key(id="other", secret_hash=key.secret_hash), "secret_hash")
            assert await store.get(ApiKey, "other") is None

    async def test_a_model_has_one_price_from_any_time_on(self) -> None:
        price = make_price()
        later = make_price(model=price.model, effective_at=price.effective_at + timedelta(milliseconds=1))

        async with self.opened() as store:
            await self._check_kept(store, price, later, make_price())
            await _refused(store, make_price(id="other", model=price.model), "effective_at")
            assert await store.get(PriceEntry, "other") is None

    async def test_a_user_with_a_budget_that_is_not_there_is_refused(self) -> None:
        async with self.opened() as store:
            await _refused(store, make_user(budget_id="nowhere"), "budget_id")
            assert await store.get(User, "user-1") is None

    async def _check_kept(self, store: Store, *records: Record) -> None:
        for record in records:
            await bounded(store.add(record))
            _check_same(await found(store, type(record), record.id), record)


async def _refused(store: Store, record: Record, field: str) -> None:
    with pytest.raises(StoreConflict) as caught:
        await bounded(store.add(record))
    assert caught.value.field == field


def _check_same(kept: Record, record: Record) -> None:
    assert kept == record
    for name in type(record).__dataclass_fields__:
        assert _digits(getattr(kept, name)) == _digits(getattr(record, name)), name


def _digits(value: Any) -> str:
    """Tells 2.50 from 2.5, 1 from True and UTC from another zone."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else repr(value)
