"""Cases 48 to 50 and 53: kill -9 of the real command, and what the next start finds on the disk."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

KILLS = int(os.environ.get("TALLYGATE_KILLS", "3"))
CLIENTS = 40
HASTY = {"drain_s": 0.3, "pump_s": 0.1, "stop_deadline_s": 0.6, "cancel_grace_s": 0.2}


@pytest.fixture
def spool(tmp_path: Path):
    """The section ``spool``, in a folder that outlives each process."""

    def section(mode: str) -> dict[str, str]:
        return {"mode": mode, "path": str(tmp_path / "data" / "spool")}

    return section


class Rush:
    """Calls without end, until the gateway is killed behind the ``moment``-th answer."""

    def __init__(self, gateway, moment: int, run: int) -> None:
        self._gateway = gateway
        self._left = moment
        self._run = run
        self.answered: list[UUID] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        rng = random.Random(f"{self._run} {number}")
        try:
            while True:
                await self._call(rng)
        except aiohttp.ClientError:
            return  # the gateway is dead

    async def _call(self, rng: random.Random) -> None:
        is_stream = rng.random() < 0.5
        fake = {"delay_ms": rng.uniform(0, 60), "chunk_ms": rng.uniform(0, 20)}
        async with self._gateway.chat(stream=is_stream, **fake) as response:
            text = await response.text()
            if response.status == 200 and (not is_stream or "[DONE]" in text):
                self.answered.append(self._gateway.promised(response))
        self._left -= 1
        if self._left == 0:
            self._gateway.process.send(signal.SIGKILL)


@pytest.fixture
def crashing(serve_unready, tmp_path: Path, provider_url: str, gateway_of):
    """As ``serve``, for a gateway that will not live to be judged."""

    @asynccontextmanager
    async def started(**sections):
        async with serve_unready(**sections) as process:
            async with gateway_of(process) as gateway:
                yield gateway

    return started


@pytest.mark.parametrize("strategy", ["batch:sqlite"])
async def test_48_kill9_write_ahead(serve, crashing, spool, strategy) -> None:
    answered: list[UUID] = []
    rng = random.Random("kills")
    for run in range(KILLS):
        async with crashing(spool=spool("write_ahead"), log_writer_strategy=strategy) as gateway:
            rush = Rush(gateway, rng.randrange(20, 250), run)
            await rush.run()
            assert await gateway.process.exit_status() == -signal.SIGKILL
            answered += rush.answered

    async with serve(spool=spool("write_ahead"), log_writer_strategy=strategy) as gateway:
        await gateway.ledger_shows(spooled=0, queued=0, in_flight=0)
        fresh = await gateway.answered()
        assert await gateway.stop() == 0
        rows = Counter(row["id"] for row in gateway.rows())
        assert [each for each in answered if rows[each] != 1] == [], "every answered call, exactly once"
        assert rows[fresh] == 1
        names = Counter(row["request_id"] for row in gateway.rows())
        reached = set(await gateway.seen_by_provider())
        assert {name for name in reached if names[name] != 1} == set(), "each call that cost money"
        crashed = [row for row in gateway.rows() if row["end_reason"] == "crash"]
        assert crashed and all(row["status"] == "cancelled" for row in crashed)
        print(f"{KILLS} kills, {len(answered)} answered, {len(crashed)} interrupted")  # noqa: T201


async def test_49_kill9_spill_only_loses_nothing_that_was_spooled(serve, crashing, spool, locked) -> None:
    batching = {"batch_deadline_s": 0.5, "attempt_timeout_s": 0.3}
    async with crashing(spool=spool("spill"), batching=batching) as gateway:
        await gateway.answered()
        await gateway.ledger_shows(committed=1)
        with locked(gateway.database):
            promised = [await gateway.answered() for _ in range(10)]
            await gateway.ledger_shows(spooled=10)
            gateway.process.send(signal.SIGKILL)
            await gateway.process.exit_status()

    async with serve(spool=spool("spill")) as gateway:
        await gateway.ledger_shows(recovered=10, spooled=0, in_flight=0)
        assert await gateway.stop() == 0
        rows = Counter(row["id"] for row in gateway.rows())
        assert all(rows[each] == 1 for each in promised)


async def test_50_crash_during_redelivery(serve, crashing, spool, locked) -> None:
    batching = {"batch_deadline_s": 0.5, "attempt_timeout_s": 0.3, "max_rows": 5}
    async with crashing(spool=spool("spill"), batching=batching) as gateway:
        await gateway.answered()
        await gateway.ledger_shows(committed=1)
        with locked(gateway.database):
            promised = [await gateway.answered() for _ in range(60)]
            await gateway.ledger_shows(spooled=60)
            gateway.process.send(signal.SIGKILL)
            await gateway.process.exit_status()
    for _ in range(2):
        async with crashing(spool=spool("spill"), batching=batching) as gateway:
            gateway.process.send(signal.SIGKILL)
            await gateway.process.exit_status()

    async with serve(spool=spool("spill")) as gateway:
        await gateway.ledger_shows(spooled=0, in_flight=0)
        assert await gateway.stop() == 0
        rows = Counter(row["id"] for row in gateway.rows())
        assert all(rows[each] == 1 for each in promised)


async def test_sigterm_with_the_sink_down_is_clean_and_the_next_start_delivers(serve, spool, locked) -> None:
    async with serve(spool=spool("spill"), shutdown=HASTY) as gateway:
        await gateway.answered()
        await gateway.ledger_shows(committed=1)
        with locked(gateway.database):
            promised = [await gateway.answered() for _ in range(5)]
            assert await gateway.stop() == 0
        assert gateway.report["spooled"] == 5 and gateway.report["clean"]

    async with serve(spool=spool("spill")) as gateway:
        await gateway.ledger_shows(committed=5, recovered=5, spooled=0)
        assert await gateway.stop() == 0
        rows = Counter(row["id"] for row in gateway.rows())
        assert all(rows[each] == 1 for each in promised)
