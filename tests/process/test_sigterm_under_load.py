"""Case 43: SIGTERM at random moments while a few hundred calls are under way, and then every row is counted.

``TALLYGATE_MOMENTS`` says how many moments (a few by default, 20 for the long proof). Each is drawn from its
seed, which is printed: the how-manieth thing that happens to any of the calls, wherever the calls are then.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import aiohttp
import pytest

MOMENTS = int(os.environ.get("TALLYGATE_MOMENTS", "3"))
CALLS = 400
CLIENTS = 250
HAPPENINGS = 3 * CALLS
"""At least so many: each call is sent, has a head, has its pieces one by one, and ends or is left."""
HASTY = {"drain_s": 0.2, "pump_s": 0.1}
"""Less than the calls need, so that many are cancelled."""


class Storm:
    """Calls of all kinds, so many at once, and a signal in their midst."""

    def __init__(self, gateway, seed: int) -> None:
        self._gateway = gateway
        self._seed = seed
        self._moment = random.Random(f"moment {seed}").randrange(CLIENTS, HAPPENINGS)
        self._happened = 0
        self.promised: list[UUID] = []
        self.whole: list[UUID] = []
        self.running_at_signal = 0
        self._running = 0

    async def rage(self) -> None:
        numbers = iter(range(CALLS))
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client(numbers))

    async def _client(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            self._running += 1
            try:
                await self._call(number)
            except aiohttp.ClientError:
                pass  # cut or never reached: what was promised by then has to be kept all the same
            self._running -= 1

    async def _call(self, number: int) -> None:
        rng = random.Random(f"call {self._seed} {number}")
        is_stream = number % 2 == 0
        leaves = is_stream and rng.random() < 0.2
        fake = {"delay_ms": rng.uniform(0, 200), "chunk_ms": rng.uniform(0, 80), **self._trouble(rng)}
        self._happens()
        async with self._gateway.chat(stream=is_stream, name=f"call{number}", **fake) as response:
            if "x-usage-id" in response.headers:
                self.promised.append(self._gateway.promised(response))
            self._happens()
            async for _ in response.content.iter_any():
                self._happens()
                if leaves:
                    return
            if response.status == 200:
                self.whole.append(self._gateway.promised(response))
        self._happens()

    def _trouble(self, rng: random.Random) -> dict[str, object]:
        kinds = [{}, {}, {}, {}, {"status": 500}, {"status": 429}, {"no_usage": True}, {"malformed": True}]
        return rng.choice(kinds)

    def __str__(self) -> str:
        return f"SIGTERM at {self._moment} of {self._happened}, {self.running_at_signal} calls running"

    def _happens(self) -> None:
        if self._happened == self._moment:
            self.running_at_signal = self._running
            self._gateway.process.send(signal.SIGTERM)
        self._happened += 1


@pytest.mark.parametrize("seed", range(MOMENTS))
async def test_43_sigterm_under_load(serve, seed) -> None:
    shutdown = HASTY if seed % 3 == 2 else {}
    async with serve(shutdown=shutdown) as gateway:
        storm = Storm(gateway, seed)
        await storm.rage()
        assert await gateway.exits() == 0
        print(f"seed {seed}: {storm}, {gateway.report['accepted']} rows")  # noqa: T201  # the seed
        assert storm.running_at_signal and gateway.report["accepted"]

        ids = Counter(row["id"] for row in gateway.rows())
        names = Counter(row["request_id"] for row in gateway.rows())
        assert [each for each in storm.promised if ids[each] != 1] == [], "each promise has exactly one row"
        reached = await gateway.seen_by_provider()
        assert [each for each in reached if names[each] != 1] == [], "each call that cost money has one row"
        assert len(reached) == len(set(reached))
        assert set(storm.whole) <= set(storm.promised)
        assert gateway.report["accepted"] == gateway.report["committed"] == len(ids)
        assert not gateway.report["shed"].keys() - {"draining", "closed"}
