"""Cases 42 and 44: SIGINT, SIGTERM, and what a second and a third one mean, in the real command."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

import aiohttp
import pytest

FOREVER_MS = 600_000
PATIENT = {"grace_s": 900, "drain_s": 300, "pump_s": 100, "stop_deadline_s": 300}
"""Longer than any test may take: only a further signal ends a step early."""
SLOW_LOCK = {"sqlite": {"path": "data/usage.db", "busy_timeout_s": 60}}
"""A thread that waits for the lock keeps the process longer than a test may take, for the third signal."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_42_keyboard_interrupt_is_sigterm(serve, number) -> None:
    async with serve() as gateway:
        async with gateway.chat(delay_ms=300) as answer:
            gateway.process.send(number)
            assert answer.status == 200
        assert await gateway.exits() == 0
        assert gateway.row(gateway.promised(answer))["status"] == "success"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_42_44_second_signal_in_handler_drain_cancels_calls_and_accounts_for_their_rows(
    serve, number
) -> None:
    async with serve(shutdown=PATIENT) as gateway:
        plain = asyncio.ensure_future(gateway.outcome(gateway.chat(hang=True)))
        async with gateway.chat(stream=True, chunk_ms=100) as left:
            await left.content.readany()
        async with gateway.chat(stream=True, chunk_ms=FOREVER_MS) as stream:
            await gateway.begun(3)
            gateway.process.send(number)
            await gateway.process.said("stopping", step="drain")
            gateway.process.send(number)
            assert await gateway.last_code(stream) == "shutting_down"
        assert await plain == (503, "shutting_down")

        assert await gateway.exits() == 3
        assert gateway.report["accepted"] == 3
        assert gateway.accounted_for() >= {gateway.promised(stream), gateway.promised(left)}


async def test_44_second_sigterm_in_writer_stop_abandons_what_a_locked_file_does_not_take(
    serve, locked
) -> None:
    async with serve(shutdown=PATIENT) as gateway:
        with locked(gateway.database):
            promised = [await gateway.answered() for _ in range(5)]
            gateway.process.send(signal.SIGTERM)
            await gateway.process.said("stopping", step="stop", rows=5)
            assert await gateway.stop() == 3

        assert gateway.report["abandoned"] == 5
        assert sorted(gateway.abandoned()) == sorted(promised)


async def test_third_sigterm_ends_the_process_at_once_with_its_report(serve, locked) -> None:
    async with serve(shutdown=PATIENT, sinks=SLOW_LOCK) as gateway:
        with locked(gateway.database):
            promised = [await gateway.answered() for _ in range(5)]
            for line in ({"event": "stopping", "step": "stop"}, {"event": "rows_abandoned"}):
                gateway.process.send(signal.SIGTERM)
                await gateway.process.said(**line)
            assert await gateway.stop() == 3

        assert sorted(gateway.abandoned()) == sorted(promised)


async def test_three_signals_at_once_account_for_calls_that_are_still_running(serve) -> None:
    async with serve(shutdown=PATIENT) as gateway:
        plain = asyncio.ensure_future(gateway.outcome(gateway.chat(hang=True)))
        async with (
            gateway.chat(stream=True, chunk_ms=100) as left,
            gateway.chat(stream=True, chunk_ms=FOREVER_MS) as stream,
        ):
            await left.content.readany()
            left.close()
            await gateway.begun(3)
            gateway.process.send(signal.SIGTERM)
            await gateway.process.said("stopping", step="drain")
            # Held still, so that both arrive in one step; two numbers, for two of the same would be one.
            for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
                gateway.process.send(number)
            assert await gateway.exits() == 3
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await plain

        assert gateway.report["accepted"] == 3
        assert gateway.accounted_for() >= {gateway.promised(stream), gateway.promised(left)}


async def test_signals_behind_the_report_change_nothing(serve) -> None:
    async with serve() as gateway:
        await gateway.answered()
        gateway.process.send(signal.SIGTERM)
        await gateway.process.said("shutdown_report")
        with suppress(ProcessLookupError):  # it may be gone by now
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                gateway.process.send(number)
        assert await gateway.exits() == 0
