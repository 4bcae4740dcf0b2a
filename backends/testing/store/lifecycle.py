"""Opening, closing, making the schema: any number of times, by any number of processes."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack

from ...store.contract import BudgetStrategy
from ...store.records import ApiKey, Budget, PriceEntry, User
from ..cases.base import bounded
from .base import StoreCases, account_of, add_spender, found
from .examples import hash_of, make_budget, make_claim, make_full_api_key, make_price, settled


class LifecycleCases(StoreCases):
    async def test_a_store_that_nobody_used_closes(self) -> None:
        async with self.open_store(self.strategies[0]):
            pass

        gc.collect()

    async def test_the_strategies_are_those_that_the_store_offers(self) -> None:
        async with self.opened() as store:
            assert store.budget_strategies == frozenset(self.strategies)

    async def test_ping_succeeds_on_a_new_database(self) -> None:
        async with self.opened() as store:
            for _ in range(3):
                await bounded(store.ping())

    async def test_the_schema_may_be_made_again_and_changes_nothing(self) -> None:
        price = make_price()

        async with self.opened() as store:
            await bounded(store.migrate())
            await store.add(price)
            await asyncio.gather(*(bounded(store.migrate()) for _ in range(3)))

            assert await store.list(PriceEntry) == [price]

    async def test_the_pool_is_counted_and_idle_when_nobody_asks(self) -> None:
        async with self.opened() as store:
            assert set(store.pool()) == {"in_use", "idle"}
            await asyncio.gather(*(store.add(make_budget(str(number))) for number in range(20)))

            assert store.pool()["in_use"] == 0
            assert store.pool()["idle"] >= 0

    async def test_everything_outlives_the_store(self, strategy: BudgetStrategy) -> None:
        self.need_shared()
        key, price, held, spent = make_full_api_key(), make_price(), make_claim(20), make_claim(30)

        async with self.opened(strategy) as store:
            await add_spender(store, 100)
            await store.add(key)
            await store.add(price)
            await store.keep_master_key(hash_of("master"))
            for claim in (held, spent):
                await store.reserve(claim)
            await store.settle([settled(spent)])
            before = await found(store, User, "user-1")
        async with self.another(strategy) as store:
            assert await found(store, User, "user-1") == before
            assert await found(store, ApiKey, key.id) == key
            assert await found(store, PriceEntry, price.id) == price
            assert await store.keep_master_key(hash_of("other")) == hash_of("master")
            await store.settle([settled(held, 5), settled(spent)])
            assert await account_of(store) == (35, 0)

    async def test_several_may_start_on_a_new_database_at_once(self) -> None:
        self.need_shared()

        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(self.opened())]
            stores += [await stack.enter_async_context(self.another()) for _ in range(3)]
            adding = [store.add(make_budget(str(number))) for number, store in enumerate(stores)]
            await asyncio.gather(*(bounded(each) for each in adding))

            for store in stores:
                assert [budget.id for budget in await store.list(Budget)] == ["0", "1", "2", "3"]

    async def test_several_may_make_the_schema_at_once(self) -> None:
        self.need_shared()

        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(self.opened())]
            stores += [await stack.enter_async_context(self.another()) for _ in range(3)]
            await asyncio.gather(*(bounded(store.migrate()) for store in stores))
            await bounded(stores[0].ping())

    async def test_a_change_is_seen_by_the_others_at_once(self) -> None:
        self.need_shared()

        async with self.opened() as first, self.another() as second:
            await add_spender(first, 100)
            assert (await found(second, User, "user-1")).limit_nano == 100
            await second.update(User, "user-1", {"blocked": True})

            assert (await found(first, User, "user-1")).blocked
            assert await first.reserve(make_claim(1)) == "user_blocked"
