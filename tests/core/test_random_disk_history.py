"""Case 57 with a disk: the same random histories, in which the disk fails too and the process dies and starts
again on what it left.

The model knows which rows were promised, and at each death which rows were on the disk or in the sink: all of
these have to be stored in the end, each as it was given.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from core.test_random_history import BAD, RandomHistory
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backends import BatchLogWriter, NotDurable, Place, SingleLogWriter, WriteAheadLogWriter
from backends.errors import SpoolUnavailable
from backends.memory import MemoryDatabase, MemorySink
from backends.record import UsageRecord
from backends.sanitise import sanitise
from backends.spool import Spool, SpoolOptions
from backends.testing import FaultySink, make_record
from backends.testing.rig import LetterBox, Rig, build_writer

LONG_S = 300.0
"""Longer than any back-off; the disk is looked after every few seconds, which is real work."""
KINDS = {"spill": BatchLogWriter, "write_ahead": WriteAheadLogWriter, "single": SingleLogWriter}


class RandomDiskHistory(RandomHistory):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tallygate-history-"))
        self.database = MemoryDatabase()
        self.box = LetterBox()
        self.records: dict[UUID, UsageRecord] = {}
        self.promised: set[UUID] = set()
        self.answered: set[UUID] = set()
        self.may_be_lost: set[UUID] = set()
        self.is_failing = False
        self.deaths = 0

    @initialize(
        mode=st.sampled_from(sorted(KINDS)),
        options=st.fixed_dictionaries(
            {
                "max_rows": st.sampled_from((1, 3, 100)),
                "linger_s": st.sampled_from((0, 0.2, 10)),
                "flush_concurrency": st.integers(1, 3),
                "max_queue_rows": st.sampled_from((5, 1000)),
                "on_full": st.sampled_from(("spill", "block", "shed", "reject")),
                "attempt_timeout_s": st.sampled_from((1, 10)),
                "batch_deadline_s": st.sampled_from((2, 120)),
            }
        ),
        names_rows=st.booleans(),
    )
    def start(self, mode: str, options: dict[str, Any], names_rows: bool) -> None:
        self.mode, self.options, self.names_rows = mode, options, names_rows
        self.is_single = mode == "single"
        self.begin()
        self.heal()

    def begin(self) -> None:
        self.rig = self.run(self._begin())
        self.settled = dict.fromkeys(self.settled, 0)

    async def _begin(self) -> Rig:
        mode = "write_ahead" if self.mode == "write_ahead" else "spill"
        self.spool = Spool(SpoolOptions(mode=mode, path=self.folder, min_free_bytes=0))  # type: ignore[arg-type]
        sink = FaultySink(MemorySink(self.database))
        writer = build_writer(sink, self.box, KINDS[self.mode], spool=self.spool, **self.options)
        await writer.start()
        return Rig(writer, sink, self.box)

    # --- calls

    @rule(count=st.integers(1, 8), is_bad=st.booleans())
    def put(self, count: int, is_bad: bool) -> None:
        async def calls() -> None:
            for _ in range(count):
                if isinstance(place := await self.reserve(), Place):
                    self.use(place, BAD if is_bad else None)

        self.run(calls())

    @rule()
    def take_a_place(self) -> None:
        if isinstance(place := self.run(self.reserve()), Place):
            self.places.append(place)

    @rule(is_bad=st.booleans())
    def put_into_one_more_place(self, is_bad: bool) -> None:
        async def put() -> None:
            if (place := self.rig.writer.reserve_now()) is not None:
                self.use(place, BAD if is_bad else None)

        self.run(put())

    async def reserve(self) -> object:
        intent = make_record(status="cancelled", end_reason="crash")
        place = await self.rig.writer.reserve(uuid4(), intent=lambda: intent)
        if isinstance(place, Place):
            self.records[place.id] = intent
            if self.mode == "write_ahead" and self.is_well():
                self.promised.add(place.id)
        return place

    @precondition(lambda self: self.places)
    @rule(number=st.integers(0, 99))
    def give_a_place_back(self, number: int) -> None:
        place = self._any_place(number)
        self.promised.discard(place.id)
        self.may_be_lost.add(place.id)  # a crash may come before the disk forgets it

        async def give_back() -> None:
            place.release()

        self.run(give_back())

    def use(self, place: Place, user_id: str | None) -> None:
        super().use(place, user_id)
        self.records[place.id] = self.rig.records[place.id]

    async def _durable(self, place: Place) -> None:
        was_well = self.is_well()
        try:
            await place.durable()
        except NotDurable:
            return
        if self.is_single or (self.mode == "write_ahead" and was_well and self.is_well()):
            self.promised.add(place.id)
            self.answered.add(place.id)

    def is_well(self) -> bool:
        is_open = self.rig.writer.stats().state in ("running", "draining")
        return is_open and not self.is_failing and not self.spool.reasons()

    # --- the disk and the process

    @rule(seconds=st.sampled_from((0.001, 0.1, 1.0, 30.0, LONG_S)))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(is_failing=st.booleans())
    def disk(self, is_failing: bool) -> None:
        def attempt(job: object) -> object:
            raise SpoolUnavailable("broken by the test")

        self.is_failing = is_failing
        if is_failing:
            self.may_abandon = True
            self.spool._disk.attempt = attempt  # type: ignore[method-assign, assignment]
        else:
            vars(self.spool._disk).pop("attempt", None)

    @precondition(lambda self: self.deaths < 3)
    @rule()
    def die_and_start_again(self) -> None:
        """What the disk and the sink have now is all that there is."""
        self.deaths += 1
        self.disk(is_failing=True)
        self.run(self._die())
        self.promised |= {*self.on_disk(), *self.database.rows, *self.box.ids()}
        self.may_be_lost |= set(self.records) - self.promised
        self.places.clear()
        self.log.ids.clear()
        self.is_failing = self.may_abandon = False
        self.begin()
        self.heal()

    async def _die(self) -> None:
        self.rig.writer.close_now()
        for waiting in self.waiting:
            waiting.cancel()
        self.waiting.clear()
        for _ in range(5):
            await asyncio.sleep(0)
        self.spool._thread.submit(self.spool._disk.close).result()
        await self.spool.close()

    def on_disk(self) -> set[UUID]:
        found: set[UUID] = set()
        for path in self.folder.glob("instance-*/spool.db"):
            connection = sqlite3.connect(path)
            for table in ("rows", "intents"):
                found |= {UUID(text) for (text,) in connection.execute(f"SELECT row_id FROM {table}")}
            connection.close()
        return found

    # --- what always holds

    @invariant()
    def the_books_balance(self) -> None:
        self.steps += 1
        stats = self.rig.writer.stats()
        self.rig.check()
        counts = stats.counts
        assert counts.spooled >= 0
        assert stats.queue_rows <= 2 * self.options["max_queue_rows"] + 1000, "one batch of the disk at most"
        assert self.may_abandon or not counts.abandoned, "only a disk that fails may cost a row"
        for name in ("committed", "duplicates", "dead_lettered", "abandoned"):
            assert getattr(counts, name) >= self.settled[name], f"{name} was taken back"
            self.settled[name] = getattr(counts, name)
        assert len(self.log.ids) == counts.abandoned == len(set(self.log.ids)), "abandoned, and not named"

    @invariant()
    def what_is_confirmed_is_stored(self) -> None:
        assert set(self.database.rows) <= set(self.records)

    # --- the end

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _end(self) -> None:
        """Everything is well again; the next run brings what this one could not."""
        self.disk(is_failing=False)
        self.promised -= {UUID(text) for text in self.log.ids}
        for place in self.places:
            self.promised.discard(place.id)
            self.may_be_lost.add(place.id)
            place.release()
        await self._ends_well()
        self.rig = await self._begin()
        self.rig.sink.poison(lambda row: row.user_id == BAD, names_rows=self.names_rows)
        await self._ends_well()
        self._check_everything()

    async def _ends_well(self) -> None:
        rig = self.rig
        self.may_abandon |= rig.writer.stats().state in ("closed", "failed")
        if rig.writer.stats().state == "running":
            await asyncio.sleep(LONG_S)
            place = await rig.place()
            rig.use(place)
            self.records[place.id] = rig.records[place.id]
            assert (await rig.writer.flush(LONG_S)).outcome == "ok"
            assert place.id in self.database.rows, "after the faults a row does not flow"
            await asyncio.sleep(LONG_S)
            counts = rig.writer.stats().counts
            assert (counts.spooled, counts.queued, counts.in_flight) == (0, 0, 0), counts
        report = await rig.writer.stop()
        await self.spool.close()
        assert self.may_abandon or report.is_clean, report

    def _check_everything(self) -> None:
        found = {*self.database.rows, *self.box.ids()}
        named = {UUID(text) for text in self.log.ids}
        assert self.promised - named <= found, f"lost: {self.promised - named - found}"
        missing = set(self.records) - found - named - self.may_be_lost
        assert not missing, f"gone without a death: {missing}"
        letters = self.box.ids()
        assert len(letters) == len(set(letters)), "a letter twice"
        for row in self.database.rows.values():
            self._check_row(row)

    def _check_row(self, row: UsageRecord) -> None:
        given = sanitise(self.records[row.id])
        is_crash = row.end_reason == "crash"
        assert row.boot_id is not None and row.seq > 0
        assert not (is_crash and given.end_reason != "crash" and row.id in self.answered), "an answer is lost"
        assert is_crash or row.status == given.status
        assert is_crash or (row.cost, row.prompt_tokens) == (given.cost, given.prompt_tokens)


assert issubclass(RandomDiskHistory, RuleBasedStateMachine)
TestRandomDiskHistory = RandomDiskHistory.TestCase
TestRandomDiskHistory.settings = settings(
    stateful_step_count=30, max_examples=int(os.environ.get("TALLYGATE_DISK_HISTORIES", "40"))
)
