"""Budgets of the real command: what kill -9 leaves held comes back, and two gateways keep one budget."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import pytest

from backends import Budget, StoreOptions, User, load_store, usd

LONG_S = 30.0
TOKENS = 10
HELD_NANO = TOKENS * 1_000
"""For a call that asks for ``TOKENS``, and what it costs in the end: the prompt is free."""
PRICES = {"local:fake": {"input_per_million": 0, "output_per_million": 1}}


class Accounts:
    """The store of the gateways, looked at from outside."""

    def __init__(self, url):
        self.url = url

    def sections(self, ttl_s=900, strategy="cas"):
        """What a gateway on this store is told."""
        return {
            "store": {"url": self.url},
            "budget_strategy": strategy,
            "budgets": {"reservation_ttl_s": ttl_s},
            "pricing": PRICES,
        }

    @asynccontextmanager
    async def open(self):
        async with load_store(self.url).open(StoreOptions(url=self.url)) as store:
            yield store

    async def allow(self, calls):
        """The user ``u`` may make so many calls."""
        now = datetime.now(UTC)
        async with self.open() as store:
            await store.add(Budget(id="b", limit_nano=calls * HELD_NANO, created_at=now))
            await store.add(User(id="u", budget_id="b", created_at=now))

    async def account(self):
        async with self.open() as store:
            user = await store.get(User, "u")
        return user.spent_nano, user.reserved_nano

    async def show(self, spent_nano, reserved_nano):
        """Returns once the account reads so."""
        async with asyncio.timeout(LONG_S):
            while await self.account() != (spent_nano, reserved_nano):
                pass


@pytest.fixture(params=["sqlite"])
def accounts(request, tmp_path):
    return Accounts({"sqlite": f"sqlite:///{tmp_path}/data/gateway.db"}[request.param])


def chat(gateway, tokens=TOKENS, **more):
    return asyncio.ensure_future(gateway.outcome(gateway.chat(user="u", tokens=tokens, **more)))


OVER = (403, "budget_exceeded")
MADE = (200, None)


async def test_what_calls_held_when_their_gateway_was_killed_comes_back(accounts, serve, crashing) -> None:
    await accounts.allow(calls=3)
    sections = accounts.sections(ttl_s=4)
    async with crashing(**sections) as gateway:
        calls = [chat(gateway, hang=True) for _ in range(3)]
        await gateway.begun(3)
        gateway.process.send(signal.SIGKILL)
        assert await gateway.process.exit_status() == -signal.SIGKILL
        await asyncio.gather(*calls, return_exceptions=True)
    assert await accounts.account() == (0, 3 * HELD_NANO)

    async with serve(**sections) as gateway:
        async with asyncio.timeout(LONG_S):
            while (outcome := await chat(gateway, tokens=3 * TOKENS)) == OVER:
                pass
        assert outcome == MADE
        await accounts.show(3 * HELD_NANO, 0)
        assert await gateway.stop() == 0
    assert await accounts.account() == (3 * HELD_NANO, 0)


@pytest.mark.parametrize("strategy", ["cas", "for_update"])
async def test_two_gateways_keep_one_budget(accounts, crashing, held, held_providers, strategy) -> None:
    await accounts.allow(calls=10)
    held.hold()
    async with AsyncExitStack() as stack:
        sections = {**accounts.sections(strategy=strategy), "providers": held_providers}
        gateways = [await stack.enter_async_context(crashing(**sections)) for _ in range(2)]
        calls = [chat(gateway) for _ in range(25) for gateway in gateways]
        await held.holds(10)
        while len(calls) > 10:
            done, waiting = await asyncio.wait(calls, timeout=LONG_S, return_when=asyncio.FIRST_COMPLETED)
            assert {call.result() for call in done} == {OVER}
            calls = list(waiting)
        assert await accounts.account() == (0, 10 * HELD_NANO)

        held.go()

        assert set(await asyncio.gather(*calls)) == {MADE}
        for gateway in gateways:
            assert await gateway.stop() == 0
    assert await accounts.account() == (10 * HELD_NANO, 0)


async def test_a_stop_settles_what_the_last_calls_cost(accounts, serve, run, tmp_path) -> None:
    await accounts.allow(calls=10)
    async with serve(**accounts.sections()) as gateway:
        calls = [chat(gateway, delay_ms=200) for _ in range(5)]
        await gateway.begun(5)
        assert await gateway.stop() == 0
        assert set(await asyncio.gather(*calls)) == {MADE}
    assert gateway.process.all_of("settlements_left") == []
    assert await accounts.account() == (5 * HELD_NANO, 0)

    status, out, err = await run("budgets", "rebuild", "--check", "--config", str(tmp_path / "gateway.yml"))

    assert (status, err) == (0, "")
    assert out.splitlines()[1].split() == ["u", *[str(usd(5 * HELD_NANO))] * 2, "equal"]


async def test_what_a_stop_cannot_settle_is_named_expires_and_can_be_charged_from_the_rows(
    accounts, serve, serve_held, held, locked, run, tmp_path
) -> None:
    await accounts.allow(calls=10)
    held.hold()
    async with serve_held(**accounts.sections(ttl_s=4)) as gateway:
        call = chat(gateway)
        await held.holds(1)
        with locked(tmp_path / "data" / "gateway.db"):
            held.go()
            assert await call == MADE
            assert await gateway.stop() == 0
        (left,) = gateway.process.all_of("settlements_left")
        assert left["count"] == 1 and left["ids"] == [str(row["id"]) for row in gateway.rows()]
    assert await accounts.account() == (0, HELD_NANO)

    async with serve(**accounts.sections(ttl_s=4)) as gateway:
        await accounts.show(0, 0)
        assert await gateway.stop() == 0
    rebuild = ("budgets", "rebuild", "--config", str(tmp_path / "gateway.yml"))
    assert (await run(*rebuild, "--check"))[0] == 1
    assert (await run(*rebuild))[0] == 0
    assert (await run(*rebuild, "--check"))[0] == 0
    assert await accounts.account() == (HELD_NANO, 0)
