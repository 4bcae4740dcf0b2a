"""The embedded store: the exported suite, and what only a file can suffer."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import backends
from backends.errors import StoreUnavailable
from backends.sqlite import SqliteOptions, SqliteSink
from backends.store.contract import BudgetStrategy, Store, StoreOptions
from backends.store.records import ApiKey, Budget, User
from backends.store.sqlite import SqliteStore
from backends.testing import StoreSuite, make_api_key, make_batch, make_budget, make_claim, make_user

PATIENT_S = 30
SHORT_S = 0.5
LETTER = "Dear friend, " * 200


class TestSqliteStore(StoreSuite):
    @pytest.fixture(autouse=True)
    def _own_file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "new folder" / "gateway.db"

    def open_store(self, strategy: BudgetStrategy) -> AbstractAsyncContextManager[Store]:
        return opened(self.path, strategy=strategy)

    reopen = open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway.db"


# --- opening


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///.",
        "sqlite:gateway.db",
        "sqlite://secret@host/gateway.db",
        "sqlite:///:memory:",
        "sqlite:///secret.db?mode=memory",
        "sqlite:///secret.db#1",
    ],
)
async def test_a_url_without_a_path_of_its_own_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///relative/path or sqlite:////absolute/path") as caught:
        async with SqliteStore.open(StoreOptions.model_validate({"url": url})):
            pass

    assert "secret" not in str(caught.value)


async def test_opening_touches_no_file(path: Path) -> None:
    async with opened(path):
        assert not path.parent.exists()


async def test_a_relative_path_is_meant_from_where_the_store_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    async with SqliteStore.open(StoreOptions()) as store:
        monkeypatch.chdir(tmp_path)
        await store.ping()

    assert (tmp_path / "here" / "data" / "gateway.db").is_file()


async def test_the_file_and_its_log_are_nobody_elses(path: Path) -> None:
    async with opened(path) as store:
        await store.add(make_budget())
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert modes == dict.fromkeys(["gateway.db", "gateway.db-wal", "gateway.db-shm"], 0o600)


async def test_nothing_is_left_beside_the_file_after_closing(path: Path) -> None:
    """Or a copy of the file alone would lack what the log beside it has. Often, since it is a matter of
    moments which connection closes last."""
    for number in range(50):
        async with opened(path) as store:
            await store.add(make_budget(str(number)))
            assert len(await store.list(Budget)) == number + 1

        assert [file.name for file in path.parent.iterdir()] == ["gateway.db"]


# --- schema


async def test_told_not_to_migrate_it_makes_no_schema_until_somebody_does(path: Path) -> None:
    async with opened(path, migrate=False) as store:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="tallygate migrate") as caught:
                await store.list(User)
            assert caught.value.code == "schema_missing"
            assert list(path.parent.iterdir()) == []
        await store.migrate()

        assert await store.list(User) == []


async def test_a_file_of_a_newer_program_is_named_and_left_alone(path: Path) -> None:
    await _write(path)
    change(path, "PRAGMA user_version = 2")

    async with opened(path) as store:
        for call in (store.ping(), store.migrate(), store.add(make_budget("other"))):
            with pytest.raises(StoreUnavailable, match="schema 2, this program knows 1") as caught:
                await call
            assert caught.value.code == "schema_newer"

    assert query(path, "SELECT id FROM budgets") == [("budget-1",)]


async def test_the_file_of_the_sink_is_not_taken_for_the_stores(path: Path) -> None:
    async with SqliteSink.open(SqliteOptions(path=path)) as sink:
        await sink.write(make_batch(1))

    async with opened(path) as store:
        with pytest.raises(StoreUnavailable, match="another program's"):
            await store.ping()

    assert len(query(path, "SELECT id FROM usage_logs")) == 1


async def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    write_letter(path)

    async with opened(path) as store:
        with pytest.raises(StoreUnavailable) as caught:
            await store.ping()

    assert caught.value.code == "SQLITE_NOTADB"
    assert is_letter(path)


# --- the file goes away


async def test_a_folder_that_is_gone_is_unavailable_until_it_is_back(path: Path) -> None:
    key, aside = make_api_key(), path.parent.with_name("aside")

    async with opened(path) as store:
        await store.add(make_user())
        await store.add(key)
        path.parent.rename(aside)
        for call in (store.ping(), store.find_key(key.secret_hash), store.reserve(make_claim())):
            with pytest.raises(StoreUnavailable):
                await call
        assert not path.parent.exists()
        aside.rename(path.parent)

        holder = await store.find_key(key.secret_hash)
        assert holder and holder.key == key
        assert await store.reserve(make_claim()) == "held"


async def test_a_file_that_is_deleted_is_not_replaced_by_an_empty_one(path: Path) -> None:
    key = make_api_key()

    async with opened(path) as store:
        await store.add(make_user())
        await store.add(key)
        for file in path.parent.iterdir():
            file.unlink()
        for _ in range(2):
            for call in (store.find_key(key.secret_hash), store.reserve(make_claim()), store.migrate()):
                with pytest.raises(StoreUnavailable) as caught:
                    await call
                assert caught.value.code == "file_gone"

    assert list(path.parent.iterdir()) == []


# --- locks, cancelling, ending


async def test_while_another_process_writes_money_waits_and_letting_in_does_not(path: Path) -> None:
    key = make_api_key()

    async with opened(path, timeout_s=SHORT_S) as store:
        await _patiently(store.add, make_user())
        await _patiently(store.add, key)
        with locked(path):
            for call in (store.reserve(make_claim()), store.sweep(make_claim().made_at)):
                with pytest.raises(StoreUnavailable):
                    await call
            assert await _patiently(store.find_key, key.secret_hash)

        assert await _patiently(store.reserve, make_claim()) == "held"


async def test_those_that_gave_up_behind_a_lock_never_happen(path: Path) -> None:
    budgets = [make_budget(str(number)) for number in range(20)]

    async with opened(path, timeout_s=SHORT_S) as store:
        await _patiently(store.ping)
        with locked(path):
            calls = [store.add(budget) for budget in budgets]
            answers = await asyncio.gather(*calls, return_exceptions=True)

        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
        await _patiently(store.add, make_budget("last"))
        assert len(await _patiently(store.list, Budget)) <= 2  # the first was under way, perhaps


async def test_a_lock_that_goes_in_time_is_waited_for(path: Path) -> None:
    async with opened(path) as store:
        await store.add(make_user())
        with locked(path):
            call = asyncio.ensure_future(store.reserve(make_claim()))
            await asyncio.sleep(0)

        assert await call == "held"


async def test_a_claim_that_is_cancelled_before_its_turn_never_happens(path: Path) -> None:
    async with opened(path) as store:
        await store.add(make_user())
        with locked(path):
            calls = [asyncio.ensure_future(store.reserve(make_claim(amount))) for amount in (1, 10)]
            await asyncio.sleep(0)
            calls[1].cancel()
            await asyncio.wait({calls[1]})
        assert await calls[0] == "held"

        user = await store.get(User, "user-1")
        assert user and user.reserved_nano == 1


async def test_closing_does_not_wait_for_a_lock_longer_than_the_timeout(path: Path) -> None:
    with locked(path):
        async with asyncio.timeout(PATIENT_S), opened(path, timeout_s=SHORT_S) as store:
            call = asyncio.ensure_future(store.reserve(make_claim()))
            await asyncio.sleep(0)
        await asyncio.wait({call})

    assert isinstance(call.exception(), StoreUnavailable)


# --- several processes


@pytest.mark.parametrize("strategy", ["for_update", "cas"])
async def test_processes_together_hold_no_more_than_there_is_room_for(
    path: Path, strategy: BudgetStrategy
) -> None:
    async with opened(path) as store:
        await store.add(make_budget("budget-1", 100))
        await store.add(make_user(budget_id="budget-1"))
        processes = [_start(RESERVE_TWENTY, path, strategy) for _ in range(4)]
        answers = [process.communicate(timeout=60)[0].split() for process in processes]
        user = await store.get(User, "user-1")

    verdicts = [verdict for answer in answers for verdict in answer]
    assert (verdicts.count("held"), verdicts.count("over_budget")) == (10, 70)
    assert user and user.reserved_nano == 100


async def test_processes_make_a_new_file_together(path: Path) -> None:
    processes = [_start(ADD_FIVE_KEYS, path) for _ in range(4)]

    for process in processes:
        assert process.communicate(timeout=60)[0].strip() == "done"

    async with opened(path) as store:
        assert len(await store.list(ApiKey)) == 20


async def test_what_was_answered_survives_a_kill(path: Path) -> None:
    async with opened(path) as store:
        await store.add(make_user())
    process = _start(SETTLE_FOR_EVER, path)
    assert process.stdout
    promised = [int(process.stdout.readline()) for _ in range(20)]
    process.kill()
    rest, _ = process.communicate(timeout=60)
    promised += [int(line) for line in rest.split("\n") if line]

    async with opened(path) as store:
        user = await store.get(User, "user-1")
    assert user and promised[-1] <= user.spent_nano <= promised[-1] + 1
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


# --- around the store


def opened(
    path: Path, strategy: BudgetStrategy = "cas", *, timeout_s: float = PATIENT_S, migrate: bool = True
) -> AbstractAsyncContextManager[SqliteStore]:
    options = {"url": f"sqlite:///{path}", "timeout_s": timeout_s, "migrate": migrate}
    return SqliteStore.open(StoreOptions.model_validate(options), strategy)


async def _write(path: Path) -> None:
    async with opened(path) as store:
        await store.add(make_budget())


async def _patiently(call: Any, *values: Any) -> Any:
    """What a store with a short timeout answers, however slow this machine is."""
    async with asyncio.timeout(PATIENT_S):
        while True:
            try:
                return await call(*values)
            except StoreUnavailable as error:
                assert error.code in ("timeout", "SQLITE_BUSY")


def write_letter(path: Path) -> None:
    """A file that somebody would miss."""
    path.parent.mkdir()
    path.write_text(LETTER)


def is_letter(path: Path) -> bool:
    return path.read_text() == LETTER


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program is in the middle of a write."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


# --- in a process of its own

HEAD = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from backends import ApiKey, Claim, Settlement, StoreOptions
from backends.store.sqlite import SqliteStore

def make_claim(amount_nano):
    soon = datetime.now(UTC) + timedelta(seconds=10)
    times = {"made_at": soon, "expires_at": soon + timedelta(minutes=15)}
    return Claim(id=uuid4(), user_id="user-1", amount_nano=amount_nano, **times)

async def main(path, strategy):
    options = StoreOptions.model_validate({"url": f"sqlite:///{path}", "timeout_s": 30})
    async with SqliteStore.open(options, strategy) as store:
        await work(store)
"""

RESERVE_TWENTY = """
async def work(store):
    print(*await asyncio.gather(*(store.reserve(make_claim(10)) for _ in range(20))))
"""

ADD_FIVE_KEYS = """
async def work(store):
    for _ in range(5):
        id = str(uuid4())
        await store.add(ApiKey(id=id, secret_hash=id, hint="", user_id="", created_at=datetime.now(UTC)))
    print("done")
"""

SETTLE_FOR_EVER = """
async def work(store):
    spent = 0
    while True:
        claim = make_claim(1)
        await store.reserve(claim)
        await store.settle([Settlement(claim=claim, cost_nano=1)])
        spent += 1
        print(spent, flush=True)
"""


def _start(script: str, path: Path, strategy: BudgetStrategy = "cas") -> subprocess.Popen[str]:
    program = f"{HEAD}\n{script}\nasyncio.run(main(*sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(backends.__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path), strategy],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
