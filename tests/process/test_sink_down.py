"""SIGTERM while the file takes no rows: they are abandoned, counted and named, and the stop is bounded."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENT = {"grace_s": 900, "stop_deadline_s": 600}
HASTY = {"drain_s": 0.3, "pump_s": 0.1, "stop_deadline_s": 0.6, "cancel_grace_s": 0.2}


def sqlite_that_waits(seconds):
    """The section ``sinks``: ``seconds`` is the longest wait for a lock."""
    return {"sqlite": {"path": "data/usage.db", "busy_timeout_s": seconds}}


@contextmanager
def moved(folder: Path) -> Iterator[None]:
    """Inside, ``folder`` is gone, and what is written into it by whoever has it open is there afterwards."""
    elsewhere = folder.with_name("elsewhere")
    folder.rename(elsewhere)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the dead letters made it anew, for the end of the boot
        elsewhere.rename(folder)


@pytest.mark.parametrize("is_down", ["locked", "folder_gone"])
async def test_sigterm_with_the_sink_down_abandons_counts_names_and_exits_3(serve, locked, is_down) -> None:
    async with serve(shutdown=HASTY) as gateway:
        stored = [await gateway.answered() for _ in range(3)]
        await gateway.ledger_shows(committed=3)
        with locked(gateway.database) if is_down == "locked" else moved(gateway.database.parent):
            promised = [await gateway.answered() for _ in range(5)]
            assert await gateway.stop() == 3

        assert gateway.report["abandoned"] == 5 and not gateway.report["clean"]
        assert sorted(gateway.abandoned()) == sorted(promised)
        assert {row["id"] for row in gateway.rows()} >= set(stored)


async def test_sink_that_was_down_for_long_gets_one_probe_and_does_not_hold_the_stop_up(
    serve, locked
) -> None:
    async with serve(shutdown=PATIENT, sinks=sqlite_that_waits(0.01)) as gateway:
        with locked(gateway.database):
            await gateway.answered()
            await gateway.is_degraded("sink_down")
            assert await gateway.stop() == 3
        assert gateway.report["abandoned"] == 1


async def test_lock_that_goes_in_time_costs_no_row(serve, locked) -> None:
    async with serve(shutdown=PATIENT) as gateway:
        with locked(gateway.database):
            promised = [await gateway.answered() for _ in range(5)]
            gateway.process.send(signal.SIGTERM)
            await gateway.process.said("stopping", step="stop", rows=5)
        assert await gateway.exits() == 0
        assert [row["id"] for row in gateway.rows()] == promised


async def test_thread_that_hangs_in_the_sink_does_not_outlive_the_stop(serve, locked) -> None:
    async with serve(shutdown=HASTY, sinks=sqlite_that_waits(60)) as gateway:
        with locked(gateway.database):
            promised = [await gateway.answered() for _ in range(2)]
            assert await gateway.stop() == 3
        assert sorted(gateway.abandoned()) == sorted(promised)
