"""Cases 25 to 27 and 29, and full dead letters: rows that no sink will ever take, and those beside them."""

from __future__ import annotations

import asyncio
import math
from random import Random
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.dispatch import MAX_STATEMENTS_PER_TURN
from backends.record import UsageRecord
from backends.testing import Gate, at_random, fail, lose_ack, records, run_virtual, virtual_clock
from backends.testing.rig import SEED, Rig, running, until

BAD = "bad"
by_name = pytest.mark.parametrize("names_rows", [True, False], ids=["named", "bisected"])


def statements_per_bad_row(rows: int) -> float:
    return 2 * (math.log2(rows) + 1)


@by_name
@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000])
def test_25_poison_single_row(count: int, names_rows: bool) -> None:
    @virtual_clock
    async def scenario(position: int) -> None:
        async with running(linger_s=0, max_rows=1000) as rig:
            rig.sink.poison(is_bad, names_rows=names_rows, code="22021")
            ids = await put_with_bad(rig, count, {position})
            await rig.writer.flush(60)

            assert len(rig.sink.writes) <= (2 if names_rows else statements_per_bad_row(count)) <= 64
            assert set(await rig.stored()) == set(ids) - {ids[position]}
            (letter,) = rig.box.letters
            assert (letter.row.id, letter.code, letter.sink) == (ids[position], "22021", "rigged")
            assert rig.writer.stats().counts.dead_lettered == 1
            assert "dead_letters" in rig.writer.stats().degraded

    for position in sorted({0, count // 2, count - 1}):
        scenario(position)


@by_name
@pytest.mark.parametrize(("count", "bad"), [(1000, 50), (500, 2), (64, 64), (37, 36)])
@virtual_clock
async def test_26_poison_many(count: int, bad: int, names_rows: bool) -> None:
    async with running(linger_s=0, max_rows=1000) as rig:
        rig.sink.poison(is_bad, names_rows=names_rows)
        positions = set(Random(SEED).sample(range(count), bad))
        ids = await put_with_bad(rig, count, positions)
        await rig.writer.flush(3600)

        assert len(rig.sink.writes) <= bad * statements_per_bad_row(count)
        assert set(rig.box.ids()) == {ids[position] for position in positions}
        assert len(rig.box.letters) == bad
        assert set(await rig.stored()) == set(ids) - set(rig.box.ids())
        await no_more_writes(rig)


@by_name
@virtual_clock
async def test_26_the_queue_moves_on_while_a_batch_is_taken_to_pieces(names_rows: bool) -> None:
    async with running(linger_s=0, max_rows=1000, flush_concurrency=1) as rig:
        gate = Gate()
        rig.sink.script(gate)
        rig.sink.poison(is_bad, names_rows=names_rows)
        await put_with_bad(rig, 1000, set(range(1000)))
        await gate.entered.wait()
        fresh = await rig.put()
        gate.opened.set()
        await rig.writer.flush(3600)

        until_then = next(n for n, write in enumerate(rig.sink.writes) if fresh in write.row_ids)
        assert until_then <= MAX_STATEMENTS_PER_TURN + 2
        assert set(await rig.stored()) == {fresh}


@virtual_clock
async def test_26_bisecting_goes_on_through_failures_and_lost_answers() -> None:
    async with running(linger_s=0, max_rows=200) as rig:
        rig.sink.poison(is_bad)
        rig.sink.always = at_random(
            Random(SEED), (0.2, fail()), (0.1, fail(ambiguous=True)), (0.1, lose_ack())
        )
        ids = await put_with_bad(rig, 400, set(range(0, 400, 40)))
        await rig.writer.flush(24 * 3600)

        assert set(rig.box.ids()) == set(ids[::40])
        assert set(await rig.stored()) == set(ids) - set(ids[::40])


@by_name
@virtual_clock
async def test_29_token_reuse_forbidden(names_rows: bool) -> None:
    async with running(linger_s=0, max_rows=100) as rig:
        rig.sink.poison(is_bad, names_rows=names_rows)
        rig.sink.script(fail(ambiguous=True))
        await put_with_bad(rig, 100, {3, 50})
        await rig.writer.flush(60)

        contents: dict[UUID, set[tuple[UUID, ...]]] = {}
        for write in rig.sink.writes:
            contents.setdefault(write.batch_id, set()).add(write.row_ids)
        assert all(len(rows) == 1 for rows in contents.values())
        assert len(contents) == len(rig.sink.writes) - 1


@by_name
@virtual_clock
async def test_dead_letters_that_are_full_keep_the_row_and_let_the_others_by(names_rows: bool) -> None:
    async with running(linger_s=0, max_rows=10) as rig:
        rig.sink.poison(is_bad, names_rows=names_rows)
        rig.box.is_full = True
        ids = await put_with_bad(rig, 10, {4})
        await asyncio.sleep(300)
        later = await rig.put_many(5)
        await asyncio.sleep(300)

        stats = rig.writer.stats()
        assert "dead_letters_full" in stats.degraded
        assert (stats.counts.in_flight, stats.counts.dead_lettered) == (1, 0)
        assert set(await rig.stored()) == {*ids, *later} - {ids[4]}

        rig.box.is_full = False
        await until(lambda: rig.writer.stats().counts.dead_lettered == 1)
        assert rig.box.ids() == [ids[4]]
        assert "dead_letters_full" not in rig.writer.stats().degraded
        assert "dead_letters" in rig.writer.stats().degraded


@virtual_clock
async def test_a_row_that_has_nowhere_to_go_does_not_keep_the_sink_busy() -> None:
    async with running(linger_s=0) as rig:
        rig.sink.poison(is_bad)
        rig.box.is_full = True
        await rig.put(user_id=BAD)
        await asyncio.sleep(3600)

        assert len(rig.sink.writes) <= 3600 / 5, "back-off up to half a minute"
        assert rig.writer.stats().breaker == "closed", "the sink is well"


@virtual_clock
async def test_a_row_that_has_nowhere_to_go_at_the_end_is_abandoned_and_named() -> None:
    async with running(linger_s=0, max_rows=10) as rig:
        rig.sink.poison(is_bad)
        rig.box.is_full = True
        ids = await put_with_bad(rig, 10, {9})

        report = await rig.writer.stop(10)

        assert (report.outcome, report.ids_sample) == ("deadline", (ids[9],))
        assert (report.stats.counts.committed, report.stats.counts.abandoned) == (9, 1)


@settings(max_examples=60)
@given(st.lists(records(), min_size=1, max_size=8))
def test_27_llm_text_fuzz(rows: list[UsageRecord]) -> None:
    async def scenario() -> None:
        async with running(linger_s=0) as rig:
            for row in rows:
                await rig.put_row(row)
            await rig.writer.flush(60)

            assert not rig.box.letters
            found = {row.id: row for row in await rig.rows()}
            assert found.keys() == rig.records.keys()
            for row_id, row in rig.records.items():
                assert found[row_id] == rig.expected(found[row_id])
                assert money_of(found[row_id]) == money_of(row)

    run_virtual(scenario())


# --- helpers


def is_bad(row: UsageRecord) -> bool:
    return row.user_id == BAD


async def put_with_bad(rig: Rig, count: int, bad: set[int]) -> list[UUID]:
    return [await rig.put(user_id=BAD if number in bad else None) for number in range(count)]


async def no_more_writes(rig: Rig) -> None:
    before = len(rig.sink.writes)
    await asyncio.sleep(3600)
    assert len(rig.sink.writes) == before


def money_of(row: UsageRecord) -> tuple[object, ...]:
    return (
        row.prompt_tokens,
        row.completion_tokens,
        row.total_tokens,
        row.cached_tokens,
        row.reasoning_tokens,
        row.cost,
    )
