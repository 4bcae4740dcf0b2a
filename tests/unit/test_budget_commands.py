"""``tallygate budgets rebuild``: what it prints, what it changes, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from backends import Budget, StoreOptions, UsageRecord, User, load_store
from backends.record import Batch
from backends.sqlite import SqliteOptions, SqliteSink
from backends.testing import make_record
from gateway import cli

Run = Callable[..., tuple[int, str, str]]
URL = "sqlite:///./data/gateway.db"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOG_WRITER_STRATEGY", raising=False)
    monkeypatch.delenv("GATEWAY_CONFIG", raising=False)
    monkeypatch.setattr(cli, "set_up_logging", lambda: None)


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Runs the command; its exit status, what it printed and what it complained of."""

    def go(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["budgets", "rebuild", *arguments])
        out, err = capfdbinary.readouterr()
        return status, out.decode(), err.decode()

    return go


def scene(*costs: str, spent_nano: int = 0, reset_every_s: int | None = None) -> User:
    """A user ``ann`` with rows that cost so much, and one without a budget; ``ann`` as the store has her."""

    async def make() -> User:
        async with load_store(URL).open(StoreOptions()) as store:
            now = datetime.now(UTC)
            budget = Budget(id="b", limit_nano=10**12, reset_every_s=reset_every_s, created_at=now)
            await store.add(budget)
            await store.add(User(id="ann", budget_id="b", created_at=now))
            await store.add(User(id="bob", created_at=now))
            user = await store.get(User, "ann")
            assert user is not None and await store.rebuild_spent(user, spent_nano)
            return user

    user = asyncio.run(make())
    asyncio.run(keep([row(cost) for cost in costs]))
    return user


def row(cost: str | None, user_id: str = "ann", at: datetime | None = None) -> UsageRecord:
    return make_record(
        user_id=user_id, cost=None if cost is None else Decimal(cost), timestamp=at or datetime.now(UTC)
    )


async def keep(rows: list[UsageRecord]) -> None:
    async with SqliteSink.open(SqliteOptions(path="data/usage.db")) as sink:
        await sink.write(Batch.of(rows))


def spent() -> int:
    async def ask() -> int:
        async with load_store(URL).open(StoreOptions()) as store:
            user = await store.get(User, "ann")
        assert user is not None
        return user.spent_nano

    return asyncio.run(ask())


def test_an_account_that_is_right_is_left(run: Run) -> None:
    scene("0.000000007", "1", spent_nano=1_000_000_007)

    status, out, err = run()

    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["user_id", "spent_usd", "rows_usd", "outcome"],
        ["ann", "1.000000007", "1.000000007", "equal"],
    ]


def test_check_tells_of_a_difference_and_changes_nothing(run: Run) -> None:
    scene("1", spent_nano=5)

    status, out, _ = run("--check")

    assert (status, out.split()[-1], spent()) == (1, "differs", 5)


def test_a_difference_is_set_right(run: Run) -> None:
    scene("1", "2", spent_nano=5)

    status, out, _ = run()

    assert (status, out.split()[-1], spent()) == (0, "done", 3_000_000_000)
    assert run("--check")[0] == 0


def test_rows_of_others_of_earlier_periods_and_without_a_cost_do_not_count(run: Run) -> None:
    user = scene("1", spent_nano=5, reset_every_s=3600)
    assert user.period_started_at is not None
    before = user.period_started_at - timedelta(microseconds=1)
    asyncio.run(keep([row("2", "bob"), row("4", at=before), row(None), row("8", at=user.period_started_at)]))

    run()

    assert spent() == 9_000_000_000


def test_without_rows_to_read_there_is_nothing_to_compare(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_WRITER_STRATEGY", "noop")

    assert run() == (2, "", "log_writer_strategy: noop keeps no rows\n")


def test_a_store_that_is_not_there_is_not_made(run: Run) -> None:
    asyncio.run(keep([row("1")]))

    status, out, err = run()

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("store: ")
