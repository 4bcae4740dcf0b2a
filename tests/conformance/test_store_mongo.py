"""The store in MongoDB: the exported suite, and what lies in the collections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest
from servers.mongo_database import OwnDatabase
from servers.mongo_store import served

from backends.store import Store, StoreOptions, load_store
from backends.store.contract import BudgetStrategy
from backends.testing import StoreSuite

pytestmark = pytest.mark.timeout(900)  # the first run on a machine builds the server


class TestMongoStore(StoreSuite):
    strategies = ("cas",)

    @pytest.fixture(autouse=True)
    async def _own_database(self, mongo: OwnDatabase) -> AsyncIterator[None]:
        async with served(mongo) as self.options:
            yield

    def open_store(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
        return load_store("mongodb:").open(self.options, strategy)

    def reopen(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
        return self.open_store(strategy)
