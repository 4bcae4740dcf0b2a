"""A cancelled call is an unknown one; sent again, it is one row each, and the sink is as good as before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from ...record import Batch
from ..records import make_batch
from .base import SinkCases, bounded, settled

STEPS = 12
"""Rounds of the event loop after which a write is cancelled; one run for each."""
MOMENTS = 20
"""Moments, spread over the time that a write takes, at which it is cancelled."""


class CancellationCases(SinkCases):
    async def test_cancel_at_every_step_flush(self) -> None:
        batches = [make_batch(20) for _ in range(STEPS)]

        async with self.open() as sink:
            await bounded(sink.ping())
            for step, batch in enumerate(batches):
                await _cancel_after_rounds(sink.write(batch), step)
                await bounded(sink.write(batch))

        await self.check_stored(*(batch.rows for batch in batches))

    async def test_cancel_at_any_moment_of_a_write(self) -> None:
        measured, *batches = [make_batch(100) for _ in range(MOMENTS + 1)]
        loop = asyncio.get_running_loop()

        async with self.open() as sink:
            await bounded(sink.ping())
            began = loop.time()
            await bounded(sink.write(measured))
            duration = loop.time() - began
            for moment, batch in enumerate(batches):
                await _cancel_after(sink.write(batch), duration * moment / MOMENTS)
                await bounded(sink.write(batch))

        await self.check_stored(measured.rows, *(batch.rows for batch in batches))

    async def test_a_cancelled_write_is_stored_whole_or_not_at_all(self) -> None:
        batches = [make_batch(50) for _ in range(STEPS)]

        async with self.open() as sink:
            for step, batch in enumerate(batches):
                await _cancel_after_rounds(sink.write(batch), step)
            last = make_batch(1)
            await bounded(sink.write(last))

        found = {row.id for row in await self.rows_in_sink()}
        halves = [batch for batch in batches if 0 < len(found & {row.id for row in batch.rows}) < 50]
        assert not (halves and self.capabilities.atomic_batch)
        assert last.rows[0].id in found

    async def test_a_write_is_not_disturbed_when_the_one_beside_it_is_cancelled(self) -> None:
        cancelled, kept = make_batch(50), make_batch(50)

        async with self.open() as sink:
            doomed = asyncio.ensure_future(sink.write(cancelled))
            beside = asyncio.ensure_future(sink.write(kept))
            await asyncio.sleep(0)
            doomed.cancel()
            await settled(doomed)
            answer = await bounded(beside)
            await bounded(sink.write(cancelled))

        assert answer.new == 50
        await self.check_stored(cancelled.rows, kept.rows)

    async def test_a_cancelled_ping_leaves_the_sink_usable(self) -> None:
        batch = make_batch(2)

        async with self.open() as sink:
            for step in range(4):
                await _cancel_after_rounds(sink.ping(), step)
            await bounded(sink.ping())
            await bounded(sink.write(batch))

        await self.check_stored(batch.rows)

    async def test_closing_right_after_a_cancelled_write_loses_no_batch(self) -> None:
        batches: list[Batch] = []

        for step in range(4):
            batches.append(make_batch(20))
            async with self.open() as sink:
                await _cancel_after_rounds(sink.write(batches[-1]), step)
        async with self.open() as sink:
            for batch in batches:
                await bounded(sink.write(batch))

        await self.check_stored(*(batch.rows for batch in batches))


async def _cancel_after_rounds(call: Awaitable[Any], rounds: int) -> None:
    task = asyncio.ensure_future(call)
    for _ in range(rounds):
        await asyncio.sleep(0)
    await _cancel(task)


async def _cancel_after(call: Awaitable[Any], seconds: float) -> None:
    task = asyncio.ensure_future(call)
    await asyncio.wait({task}, timeout=seconds)
    await _cancel(task)


async def _cancel(task: asyncio.Future[Any]) -> None:
    was_done = not task.cancel()
    await settled(task)
    if was_done:
        task.result()
    elif not task.cancelled():  # it ended in this very round; only a typed error may do that, or an answer
        task.result()
