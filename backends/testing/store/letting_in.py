"""Who comes in with which secret, when it was last used, and the one master key."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

from ...store.contract import Store
from ...store.records import ApiKey, KeyHolder, User
from ..cases.base import bounded
from .base import StoreCases, found
from .examples import CREATED_AT, NESTED, hash_of, make_api_key, make_full_api_key, make_user


class LettingInCases(StoreCases):
    async def test_a_key_is_found_by_its_secret_with_its_user(self) -> None:
        key, other = make_full_api_key(user_id="zoë"), make_api_key(user_id="jo")

        async with self.opened() as store:
            await store.add(make_user("zoë", alias="Zoë", metadata=NESTED))
            await store.add(make_user("jo"))
            await store.add(key)
            await store.add(other)

            assert await store.find_key(key.secret_hash) == KeyHolder(key, await found(store, User, "zoë"))
            assert await store.find_key(other.secret_hash) == KeyHolder(other, await found(store, User, "jo"))

    async def test_a_key_is_found_by_the_secret_before_the_last_rotation(self) -> None:
        key = make_api_key()
        first, second, third = key.secret_hash, hash_of("second"), hash_of("third")

        async with self.opened() as store:
            await store.add(make_user())
            await store.add(key)
            await store.update(ApiKey, key.id, {"secret_hash": second, "previous_hash": first})
            for secret in (first, second):
                assert await _key_id(store, secret) == key.id
            await store.update(ApiKey, key.id, {"secret_hash": third, "previous_hash": second})
            for secret in (second, third):
                assert await _key_id(store, secret) == key.id
            assert await _key_id(store, first) is None

    async def test_a_key_without_a_previous_secret_is_not_found_by_nothing(self) -> None:
        async with self.opened() as store:
            await store.add(make_user())
            await store.add(make_api_key())

            assert await _key_id(store, hash_of("unknown")) is None
            assert await _key_id(store, "") is None

    async def test_keys_that_open_nothing_any_more_are_found_too(self) -> None:
        key = make_full_api_key(expires_at=CREATED_AT, previous_expires_at=CREATED_AT)

        async with self.opened() as store:
            await store.add(make_user(blocked=True, deleted_at=CREATED_AT))
            await store.add(key)
            for secret in (key.secret_hash, key.previous_hash):
                holder = await store.find_key(str(secret))
                assert holder and (holder.key, holder.user.blocked) == (key, True)

    async def test_last_use_goes_forward_only(self) -> None:
        first, second = make_api_key(), make_api_key()
        later = CREATED_AT + timedelta(milliseconds=1)

        async with self.opened() as store:
            await store.add(make_user())
            await store.add(first)
            await store.add(second)
            await store.touch_keys({first.id: later, second.id: CREATED_AT, "nobody": later})
            await store.touch_keys({first.id: CREATED_AT, second.id: later})
            await store.touch_keys({})

            assert (await found(store, ApiKey, first.id)).last_used_at == later
            assert (await found(store, ApiKey, second.id)).last_used_at == later

    async def test_last_use_is_cut_to_the_millisecond(self) -> None:
        key = make_api_key()

        async with self.opened() as store:
            await store.add(make_user())
            await store.add(key)
            await store.touch_keys({key.id: CREATED_AT + timedelta(microseconds=999)})

            assert (await found(store, ApiKey, key.id)).last_used_at == CREATED_AT

    async def test_many_uses_at_the_same_time_leave_the_latest(self) -> None:
        keys = [make_api_key() for _ in range(5)]
        moments = [CREATED_AT + timedelta(seconds=second) for second in (3, 9, 1, 7, 5)]

        async with self.opened() as store:
            await store.add(make_user())
            for key in keys:
                await store.add(key)
            uses = [{key.id: moment for key in keys} for moment in moments]
            orders = [dict(reversed(use.items())) if n % 2 else use for n, use in enumerate(uses)]
            await asyncio.gather(*(bounded(store.touch_keys(use)) for use in orders))

            assert {key.last_used_at for key in await store.list(ApiKey)} == {max(moments)}

    async def test_the_first_master_key_is_kept(self) -> None:
        async with self.opened() as store:
            assert await store.keep_master_key(hash_of("first")) == hash_of("first")
            assert await store.keep_master_key(hash_of("second")) == hash_of("first")

    async def test_of_many_master_keys_at_once_one_is_kept(self) -> None:
        hashes = [hash_of(str(number)) for number in range(10)]

        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(self.opened())]
            if self.is_shared:
                stores += [await stack.enter_async_context(self.another()) for _ in range(2)]
            pairs = [(stores[number % len(stores)], each) for number, each in enumerate(hashes)]
            answers = await asyncio.gather(*(bounded(store.keep_master_key(each)) for store, each in pairs))

        assert len(set(answers)) == 1
        assert answers[0] in hashes


async def _key_id(store: Store, secret_hash: str) -> str | None:
    holder = await bounded(store.find_key(secret_hash))
    return holder.key.id if holder else None
