"""What the sink learns of each run: its start, its last number, the numbers it gave up; if need be later."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from backends.boots import Numbers
from backends.memory import MemoryDatabase, MemorySink
from backends.record import Boot
from backends.testing import FaultySink, fail, make_record, virtual_clock
from backends.testing.rig import LetterBox, Rig, build_writer, until


class Ear(MemorySink):
    """Hears every boot record that reaches the sink."""

    def __init__(self) -> None:
        super().__init__(MemoryDatabase())
        self.heard: list[Boot] = []

    async def record_boot(self, boot: Boot) -> None:
        self.heard.append(boot)


def rig_of(ear: Ear, box: LetterBox, **options: object) -> Rig:
    sink = FaultySink(ear)
    return Rig(build_writer(sink, box, linger_s=0, **options), sink, box)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([3], "3"),
        ([1, 2, 3], "1-3"),
        ([3, 1, 2, 2], "1-3"),
        ([12, 5, 6, 9, 8, 7], "5-9,12"),
        ([1, 3, 5], "1,3,5"),
    ],
)
def test_numbers_read_as_ranges(numbers: list[int], text: str) -> None:
    found = Numbers()
    for number in numbers:
        found.add(number)

    assert str(found) == text


def test_numbers_in_any_order_are_the_same_ranges() -> None:
    numbers = Random(1).sample(range(100), 60)
    found = Numbers()
    for number in numbers:
        found.add(number)

    read = [part.split("-") for part in str(found).split(",")]
    assert [n for part in read for n in range(int(part[0]), int(part[-1]) + 1)] == sorted(numbers)


@virtual_clock
async def test_a_run_tells_its_start_and_its_end_and_keeps_nothing() -> None:
    ear, box = Ear(), LetterBox()
    rig = rig_of(ear, box)
    await rig.writer.start()
    await rig.put_many(3)
    await until(lambda: bool(ear.heard))

    await rig.writer.stop()

    start, end = ear.heard
    assert (start.id, start.closed_at, start.last_seq) == (rig.writer.boot_id, None, None)
    assert (end.id, end.last_seq, end.abandoned) == (rig.writer.boot_id, 3, "")
    assert end.closed_at is not None and box.boots == {}


@virtual_clock
async def test_what_the_sink_did_not_take_at_the_close_is_told_by_the_next_run_and_dropped() -> None:
    ear, box = Ear(), LetterBox()
    down = rig_of(ear, box, max_rows=10)
    await down.writer.start()
    await down.put_many(5)
    await down.writer.flush(10)
    down.sink.always = fail()
    await down.put_many(4)

    report = await down.writer.stop(1)

    assert report.stats.counts.abandoned == 4
    (kept,) = box.boots.values()
    assert (kept.id, kept.last_seq, kept.abandoned) == (down.writer.boot_id, 9, "6-9")

    up = rig_of(ear, box)
    up.sink.always = fail()
    await up.writer.start()
    await asyncio.sleep(60)
    assert box.boots, "it is kept until it is taken"
    up.sink.heal()
    await until(lambda: not box.boots)
    assert kept in ear.heard
    await up.writer.stop()
    assert box.boots == {}


@virtual_clock
async def test_a_row_that_comes_after_the_close_is_counted_in_what_is_kept() -> None:
    ear, box = Ear(), LetterBox()
    rig = rig_of(ear, box)
    await rig.writer.start()
    await rig.put_many(2)
    late = await rig.place()
    await rig.writer.stop(1)

    late.put(make_record())

    (kept,) = box.boots.values()
    assert (kept.last_seq, kept.abandoned) == (3, "3")


@virtual_clock
async def test_a_loop_that_dies_leaves_what_is_known_of_its_run() -> None:
    ear, box = Ear(), LetterBox()
    rig = rig_of(ear, box)
    rig.sink.always = rig.sink.hang(heeds_cancel=True)
    await rig.writer.start()
    await rig.put_many(2)

    rig.writer.close_now()

    (kept,) = box.boots.values()
    assert (kept.last_seq, kept.abandoned) == (2, "1-2")


@virtual_clock
async def test_a_writer_that_never_started_leaves_no_record() -> None:
    box = LetterBox()
    rig = rig_of(Ear(), box)

    await rig.writer.stop()

    assert box.boots == {}
