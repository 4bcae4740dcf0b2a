"""Cases 48 to 50: kill -9 of the real command, on every durable sink, and what the next start finds."""

from __future__ import annotations

import os
import random
import signal

import pytest

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs the servers

KILLS = int(os.environ.get("TALLYGATE_KILLS", "3"))
SMALL = {"batch_deadline_s": 0.5, "attempt_timeout_s": 1.0, "max_rows": 5}
"""Batches are overdue soon, and many: there is something to crash in the middle of."""


async def killed(gateway) -> None:
    gateway.process.send(signal.SIGKILL)
    assert await gateway.process.exit_status() == -signal.SIGKILL


async def test_48_kill9_write_ahead(durable, oracle, serve, crashing, spool, priced) -> None:
    sections = {**durable.strategy(), **priced, "spool": spool("write_ahead")}
    rng = random.Random("kills")
    for _ in range(KILLS):
        async with crashing(**sections) as gateway:
            await oracle.begin(gateway, "write_ahead")
            await oracle.reach(rng.randrange(20, 150))
            await killed(gateway)
            await oracle.ended(gateway, "killed")

    async with serve(**sections) as gateway:
        await oracle.healed(gateway)
        assert await gateway.stop() == 0

    verdict = await oracle.verdict(durable)
    assert verdict["answered"] and verdict["interrupted"] and verdict["crash_rows"]
    numbers = ("answered", "interrupted", "rows", "missing", "duplicate", "crash_rows")
    told = {name: verdict[name] for name in numbers}
    print(f"{durable.name}: {KILLS} kills, {told}")  # noqa: T201  # for the record


async def test_49_kill9_spill_only_loses_nothing_that_was_spooled(durable, serve, crashing, spool) -> None:
    sections = {**durable.strategy(), "spool": spool("spill"), "batching": SMALL}
    async with crashing(**sections) as gateway:
        await gateway.answered()
        await gateway.ledger_shows(spooled=0, queued=0, in_flight=0)
        async with durable.down():
            promised = [await gateway.answered() for _ in range(10)]
            await gateway.ledger_shows(spooled=10)
            await killed(gateway)

    async with serve(**sections) as gateway:
        await gateway.ledger_shows(recovered=10, spooled=0, in_flight=0)
        assert await gateway.stop() == 0
    ids = await durable.ids()
    assert [ids[each] for each in promised] == [1] * 10


async def test_50_crash_during_redelivery(durable, serve, crashing, spool) -> None:
    sections = {**durable.strategy(), "spool": spool("spill"), "batching": SMALL}
    async with crashing(**sections) as gateway:
        await gateway.answered()
        await gateway.ledger_shows(spooled=0, queued=0, in_flight=0)
        async with durable.down():
            promised = [await gateway.answered() for _ in range(60)]
            await gateway.ledger_shows(spooled=60)
            await killed(gateway)
    for _ in range(3):
        async with crashing(**sections) as gateway:
            await killed(gateway)

    async with serve(**sections) as gateway:
        await gateway.ledger_shows(spooled=0, in_flight=0)
        assert await gateway.stop() == 0
    ids = await durable.ids()
    assert [ids[each] for each in promised] == [1] * 60
