"""The store in memory is the specification: it passes the suite first."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import pytest
from pydantic import SecretStr

from backends import Store, StoreOptions, load_store
from backends.store.contract import BudgetStrategy
from backends.testing import StoreSuite

OPTIONS = StoreOptions(url=SecretStr("memory:"))


class TestMemoryStore(StoreSuite):
    is_shared = False

    def open_store(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
        return load_store("memory:").open(OPTIONS, strategy)


@pytest.mark.parametrize("url", ["memory:name", "memory://user:secret@host"])
async def test_a_url_with_more_than_its_scheme_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="write memory:") as caught:
        async with load_store(url).open(StoreOptions(url=SecretStr(url))):
            pass

    assert "secret" not in str(caught.value)
