"""The embedded store: the exported suite, and what only a file can suffer."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from backends.store.contract import BudgetStrategy, Store, StoreOptions
from backends.store.sqlite import SqliteStore
from backends.testing import StoreSuite

PATIENT_S = 30


class TestSqliteStore(StoreSuite):
    @pytest.fixture(autouse=True)
    def _own_file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "new folder" / "gateway.db"

    def open_store(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
        return SqliteStore.open(options(self.path, timeout_s=PATIENT_S), strategy)

    reopen = open_store


def options(path: Path, **others: object) -> StoreOptions:
    return StoreOptions.model_validate({"url": f"sqlite:///{path}", **others})
