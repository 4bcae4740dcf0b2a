"""Cases 53, 54 and 56 with the real command: a spool that others hold or left, a sink that is down for long.

The long run of the last one is a part of `make chaos`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs the servers

OUTAGE_S = float(os.environ.get("TALLYGATE_SOAK_S", "10"))
RATE = 100.0
SAMPLES = 10
FLAT = 1.25
"""The most that an outage may grow the process, from its second quarter on."""
SMALL = {"batch_deadline_s": 0.5, "attempt_timeout_s": 1.0, "max_rows": 5}
SOON_S = 60.0


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


async def test_56_long_outage_soak(durable, oracle, serve, spool, priced) -> None:
    batching = {"max_queue_rows": 200, "max_rows": 100, "batch_deadline_s": 2, "attempt_timeout_s": 1}
    sections = {**durable.strategy(), **priced, "spool": spool("spill"), "batching": batching}
    async with serve(**sections) as gateway:
        await oracle.begin(gateway, "spill", clients=32, rate=RATE)
        await oracle.reach(100)
        sizes = []
        async with durable.down():
            for _ in range(SAMPLES):
                await oracle.reach(10**9, within_s=OUTAGE_S / SAMPLES)
                sizes.append(resident_mb(gateway.process.pid))
            spooled = (await gateway.ledger())["spooled"]
        await oracle.reach(50)  # calls go on while the disk is emptied
        await oracle.do("end", ending="stopped")
        await gateway.ledger_shows(spooled=0, queued=0, in_flight=0)
        await oracle.healed(gateway)
        assert await gateway.stop() == 0
        shed = gateway.report["shed"]

    verdict = await oracle.verdict(durable)
    assert spooled > 0 and shed == {}
    assert verdict["answered"] > 100 and verdict["excused"] == 0
    assert max(sizes) < FLAT * sizes[SAMPLES // 4], sizes


async def test_53_spool_locked_by_other_takes_a_folder_of_its_own(
    durable, serve, crashing, spool, tmp_path
) -> None:
    sections = {**durable.strategy(), "spool": spool("spill"), "batching": SMALL}
    async with crashing(**sections) as first:
        await first.answered()
        await first.ledger_shows(spooled=0, queued=0, in_flight=0)
        async with serve(**sections) as second:
            async with durable.down():
                promised = [await each.answered() for each in (first, second) for _ in range(10)]
                await first.ledger_shows(spooled=10)
                await second.ledger_shows(spooled=10)
                first.process.send(signal.SIGKILL)
                await first.process.exit_status()
            await second.ledger_shows(spooled=0, queued=0, in_flight=0)
            assert await second.stop() == 0

    # Whether the second adopted what the first left depends on how long it lived: the next start does.
    async with serve(**sections) as third:
        await third.ledger_shows(spooled=0, queued=0, in_flight=0)
        assert await third.stop() == 0
    ids = await durable.ids()
    assert [ids[each] for each in promised] == [1] * 20


async def test_54_multi_worker_spool_of_a_killed_worker_is_adopted(
    durable, serve_unready, gateway_of, spool, oracle, priced
) -> None:
    sections = {
        **durable.strategy(),
        **priced,
        "spool": spool("write_ahead"),
        "batching": SMALL,
        "workers": 2,
    }
    async with serve_unready(**sections) as process, gateway_of(process) as gateway:
        async with durable.down():
            await oracle.begin(gateway, "write_ahead", clients=16)
            await oracle.reach(80)
            victim = process.all_of("worker_started", worker=1)[-1]["pid"]
            os.kill(victim, signal.SIGKILL)
            await process.said("worker_ended", worker=1)
            await oracle.reach(80)
            await oracle.do("end", ending="stopped")
        # The rows are the next worker's, or the other's who was quicker: until then nobody counts them.
        await process.said("worker_ready", worker=1, times=2)
        async with asyncio.timeout(SOON_S):
            while not await is_delivered(gateway):
                pass
        assert await gateway.stop() == 0

    assert (await oracle.verdict(durable))["answered"] >= 100


async def is_delivered(gateway) -> bool:
    ledger = await gateway.ledger()
    return not any(ledger[name] for name in ("spooled", "queued", "in_flight"))
