"""A store that goes away under load: clients are told to come again, and nobody restarts anything."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from process.stores import HELD_NANO, LONG_S, TOKENS

CLIENTS = 8
MADE = (200, None)
DOWN = (503, "store_unavailable")


@dataclass
class Load:
    """Clients that call with one key as fast as they can. ``heard``: how often each outcome came."""

    gateway: object
    key: str
    heard: Counter = field(default_factory=Counter)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    async def client(self):
        body = {"model": "local:fake", "messages": [{"role": "user", "content": "x"}], "max_tokens": TOKENS}
        headers = {"Authorization": f"Bearer {self.key}"}
        while not self.is_over:
            async with self.gateway.session.post(
                "/v1/chat/completions", json=body, headers=headers
            ) as answer:
                code = (await answer.json()).get("error", {}).get("code")
                outcome = (answer.status, code)
                assert outcome != DOWN or answer.headers["Retry-After"] == "1"
                assert (outcome == MADE) is ("x-usage-id" in answer.headers)
            self.heard[outcome] += 1
            self.changed.set()

    async def hears(self, outcome, times=20):
        """Returns once so many more calls ended so."""
        wanted = self.heard[outcome] + times
        async with asyncio.timeout(LONG_S):
            while self.heard[outcome] < wanted:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def loaded(gateway, key):
    load = Load(gateway, key)
    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(load.client())
        yield load
        load.is_over = True


async def test_a_store_that_goes_under_load_is_a_503_and_back_without_a_restart(accounts, serve) -> None:
    await accounts.allow(calls=100_000)
    sections = accounts.sections(cache_s=0.2, timeout_s=1)
    async with serve(**sections) as gateway:
        async with gateway.session.post("/v1/keys", json={"user_id": "u"}) as answer:
            assert answer.status == 201, await answer.text()
            key = (await answer.json())["key"]
        async with loaded(gateway, key) as load:
            await load.hears(MADE)
            async with accounts.down():
                await load.hears(DOWN)
            await load.hears(MADE)

        assert set(load.heard) == {MADE, DOWN}
        await accounts.show(load.heard[MADE] * HELD_NANO, 0)
        assert await gateway.stop() == 0
    assert len(gateway.rows()) == load.heard[MADE]
