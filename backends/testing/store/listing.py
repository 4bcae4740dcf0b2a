"""Lists: in the order of bytes, page by page, and only what was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from ...errors import StoreConflict
from ...store.contract import Store
from ...store.records import ApiKey, Budget, PriceEntry, Record, User
from ..cases.base import bounded
from .base import StoreCases, add_spender
from .examples import CREATED_AT, make_api_key, make_budget, make_claim, make_price, make_user

IDS = ("", " ", "-", "A", "B", "Z", "_", "a", "a ", "a-b", "aB", "ab", "z", "~", "é", "漢", "\uffee", "😀")
"""In the order of their bytes, which is neither a dictionary's nor that of 16 bits each."""


class ListingCases(StoreCases):
    async def test_a_list_is_in_the_order_of_bytes(self) -> None:
        assert list(IDS) == sorted(IDS, key=str.encode)

        async with self.opened() as store:
            for id in reversed(IDS):
                await store.add(make_budget(id))

            assert await _ids(store, Budget) == list(IDS)

    async def test_half_a_character_is_in_no_record(self) -> None:
        half = "a\ud83d"

        async with self.opened() as store:
            await add_spender(store)
            for kind in (ApiKey, User, Budget, PriceEntry):
                assert await store.get(kind, half) is None
                assert await store.update(kind, half, {"created_at": CREATED_AT}) is None
            assert await store.remove(Budget, half) is False
            assert await store.find_key(half) is None
            assert await store.reserve(make_claim(user_id=half)) == "user_missing"
            assert await _ids(store, User, where={"alias": half}) == []
            await store.touch_keys({half: CREATED_AT})
            records: dict[str, Record] = {
                "id": make_user(half),
                "alias": make_user(alias=half),
                "budget_id": make_user(budget_id=half),
                "hint": make_api_key(hint=half),
                "model": make_price(model=half),
            }
            for field, record in records.items():
                with pytest.raises(StoreConflict) as caught:
                    await store.add(record)
                assert caught.value.field == field
            with pytest.raises(StoreConflict):
                await store.update(User, "user-1", {"alias": half})

    async def test_pages_follow_each_other_without_gaps(self) -> None:
        async with self.opened() as store:
            for id in IDS:
                await store.add(make_user(id))
            for size in (1, 2, 5, len(IDS), 100):
                assert await _paged(store, User, size) == list(IDS)

    async def test_a_page_may_begin_behind_an_id_that_nobody_has(self) -> None:
        async with self.opened() as store:
            for id in ("a", "c", "e"):
                await store.add(make_price(id=id))

            assert await _ids(store, PriceEntry, after="b") == ["c", "e"]
            assert await _ids(store, PriceEntry, after="c") == ["e"]
            assert await _ids(store, PriceEntry, after="e") == []

    async def test_a_list_has_a_hundred_records_if_nothing_is_said(self) -> None:
        async with self.opened() as store:
            for number in range(101):
                await store.add(make_budget(f"{number:03}"))

            assert await _ids(store, Budget) == [f"{number:03}" for number in range(100)]

    async def test_nothing_there_is_an_empty_list(self) -> None:
        async with self.opened() as store:
            for kind in (ApiKey, User, Budget, PriceEntry):
                assert await _ids(store, kind) == []

    async def test_a_list_is_narrowed_by_text_truth_and_none(self) -> None:
        async with self.opened() as store:
            await store.add(make_budget("x"))
            for user in (
                make_user("1", alias="Ann", budget_id="x"),
                make_user("2", alias="ann", blocked=True),
                make_user("3", alias="Ann", blocked=True, deleted_at=CREATED_AT),
                make_user("4"),
            ):
                await store.add(user)

            assert await _ids(store, User, where={}) == ["1", "2", "3", "4"]
            assert await _ids(store, User, where={"alias": "Ann"}) == ["1", "3"]
            assert await _ids(store, User, where={"alias": None}) == ["4"]
            assert await _ids(store, User, where={"blocked": True}) == ["2", "3"]
            assert await _ids(store, User, where={"blocked": False}) == ["1", "4"]
            assert await _ids(store, User, where={"deleted_at": None}) == ["1", "2", "4"]
            assert await _ids(store, User, where={"budget_id": "x"}) == ["1"]
            assert await _ids(store, User, where={"blocked": True, "deleted_at": None}) == ["2"]
            assert await _ids(store, User, where={"alias": "nobody' OR 1=1 --"}) == []

    async def test_pages_of_what_was_asked_for_are_full(self) -> None:
        async with self.opened() as store:
            await store.add(make_user("1"))
            await store.add(make_user("2"))
            for number in range(12):
                await store.add(make_api_key(id=f"{number:02}", user_id=str(number % 2 + 1)))

            first = await _ids(store, ApiKey, where={"user_id": "2"}, limit=4)
            rest = await _ids(store, ApiKey, where={"user_id": "2"}, limit=4, after=first[-1])

        assert (first, rest) == (["01", "03", "05", "07"], ["09", "11"])

    async def test_records_of_a_list_are_whole(self) -> None:
        prices = [make_price(id=str(number)) for number in range(3)]

        async with self.opened() as store:
            for price in prices:
                await store.add(price)

            assert list(await store.list(PriceEntry, where={"model": prices[1].model})) == [prices[1]]
            assert list(await store.list(PriceEntry)) == prices


async def _ids(store: Store, kind: type[Any], **asked: Any) -> list[str]:
    return [each.id for each in await bounded(store.list(kind, **asked))]


async def _paged(store: Store, kind: type[Any], size: int) -> list[str]:
    ids: list[str] = []
    page = await _ids(store, kind, limit=size)
    while page:
        assert len(page) <= size
        ids += page
        page = await _ids(store, kind, limit=size, after=ids[-1])
    return ids
