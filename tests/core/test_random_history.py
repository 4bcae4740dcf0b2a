"""Case 57: any history of calls, faults, cancels and stops, with the ledger's equation after each step.

The model knows which rows were given, and nothing else: what became of each has to follow from the sink, the
dead letters and the log. Time is virtual, so that an outage of an hour is a step like any other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backends import BatchLogWriter, NotDurable, Place, SingleLogWriter, StopReport
from backends.sink import Committed
from backends.testing import (
    Deliver,
    Fault,
    FaultySink,
    VirtualClockLoop,
    fail,
    fatal,
    lose_ack,
    make_record,
    raising,
    slow,
)
from backends.testing.rig import LetterBox, Rig, build_writer

T = TypeVar("T")

late = precondition(lambda self: self.steps >= STEPS_BEFORE_THE_END)

BAD = "bad"
HOUR_S = 3600.0
STEPS_BEFORE_THE_END = 15
"""Before so many steps nothing ends the writer: a history that is over at once shows little."""
SETTLED = ("committed", "duplicates", "dead_lettered", "abandoned")


class NamedIds(logging.Handler):
    """The ids that the log names."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.ids += getattr(record, "ids", [])


class Deaf:
    """A fault: no answer and no ear for cancelling, until the server is thawed; then the write fails."""

    def __init__(self, after_commit: bool) -> None:
        self.thawed = asyncio.Event()
        self._after_commit = after_commit

    async def __call__(self, deliver: Deliver) -> Committed:
        if self._after_commit:
            await deliver()
        while not self.thawed.is_set():
            try:
                await self.thawed.wait()
            except asyncio.CancelledError:
                continue
        raise ConnectionError("thawed")


FAULTS: dict[str, Callable[[], Fault]] = {
    "fail": fail,
    "fail, perhaps stored": lambda: fail(ambiguous=True),
    "fail, slow down": lambda: fail(slow_down=True),
    "lose the answer": lose_ack,
    "refuse credentials": fatal,
    "raise what no sink may": lambda: raising(lambda: ValueError("a bug of the sink's")),
    "take three seconds": lambda: slow(3.0),
    "take longer than any timeout": lambda: slow(HOUR_S),
    "freeze": lambda: Deaf(after_commit=False),
    "store, then freeze": lambda: Deaf(after_commit=True),
}


class RandomHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualClockLoop)
        self.log = NamedIds()
        logging.getLogger("backends.writer").addHandler(self.log)
        logging.getLogger("backends").propagate = False
        self.places: list[Place] = []
        self.waiting: list[asyncio.Future[Any]] = []
        self.frozen: list[Deaf] = []
        self.settled = dict.fromkeys(SETTLED, 0)
        self.may_abandon = False
        self.steps = 0

    @initialize(
        kind=st.sampled_from((BatchLogWriter, SingleLogWriter)),
        options=st.fixed_dictionaries(
            {
                "max_rows": st.sampled_from((1, 3, 100)),
                "linger_s": st.sampled_from((0, 0.2, 10)),
                "flush_concurrency": st.integers(1, 3),
                "max_queue_rows": st.sampled_from((5, 1000)),
                "on_full": st.sampled_from(("block", "shed", "reject")),
                "attempt_timeout_s": st.sampled_from((1, 10)),
            }
        ),
        names_rows=st.booleans(),
    )
    def start(self, kind: type[BatchLogWriter], options: dict[str, Any], names_rows: bool) -> None:
        self.max_queue_rows = options["max_queue_rows"]
        self.names_rows = names_rows
        self.is_single = kind is SingleLogWriter
        self.rig = self.run(self._start(kind, options))
        self.heal()

    async def _start(self, kind: type[BatchLogWriter], options: dict[str, Any]) -> Rig:
        sink, box = FaultySink(), LetterBox()
        rig = Rig(build_writer(sink, box, kind, **options), sink, box)
        await rig.writer.start()
        return rig

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    # --- calls

    @rule(count=st.integers(1, 8), is_bad=st.booleans())
    def put(self, count: int, is_bad: bool) -> None:
        async def calls() -> None:
            for _ in range(count):
                place = await self.rig.writer.reserve()
                if isinstance(place, Place):
                    self.use(place, BAD if is_bad else None)

        self.run(calls())

    @rule()
    def take_a_place(self) -> None:
        place = self.run(self.rig.writer.reserve())
        if isinstance(place, Place):
            self.places.append(place)

    @rule()
    def take_one_more_place(self) -> None:
        async def take() -> Place | None:
            return self.rig.writer.reserve_now()

        if (place := self.run(take())) is not None:
            self.places.append(place)

    @precondition(lambda self: self.places)
    @rule(number=st.integers(0, 99), is_bad=st.booleans())
    def use_a_place(self, number: int, is_bad: bool) -> None:
        async def use() -> None:
            self.use(self._any_place(number), BAD if is_bad else None)

        self.run(use())

    @precondition(lambda self: self.places)
    @rule(number=st.integers(0, 99))
    def give_a_place_back(self, number: int) -> None:
        self._any_place(number).release()

    def _any_place(self, number: int) -> Place:
        return self.places.pop(number % len(self.places))

    def use(self, place: Place, user_id: str | None) -> None:
        if self.rig.writer.stats().state in ("closed", "failed"):
            self.may_abandon = True
        self.rig.hand(place, make_record(id=place.id, user_id=user_id))
        self.waiting.append(asyncio.ensure_future(self._durable(place)))

    async def _durable(self, place: Place) -> None:
        try:
            await place.durable()
        except NotDurable:
            return
        if self.is_single:
            assert place.id in {*await self.rig.stored(), *self.rig.box.ids()}, "a promise is broken"

    # --- the world

    @rule(seconds=st.sampled_from((0.001, 0.1, 1.0, 30.0, HOUR_S)))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(rounds=st.integers(1, 6))
    def a_few_steps(self, rounds: int) -> None:
        async def steps() -> None:
            for _ in range(rounds):
                await asyncio.sleep(0)

        self.run(steps())

    @rule(name=st.sampled_from(sorted(FAULTS)), lasts=st.booleans())
    def fault(self, name: str, lasts: bool) -> None:
        self.may_abandon |= self.is_single  # a row that cannot be stored within its call is given up
        fault = FAULTS[name]()
        if isinstance(fault, Deaf):
            self.frozen.append(fault)
        if lasts:
            self.rig.sink.always = fault
        else:
            self.rig.sink.script(fault)

    @rule()
    def heal(self) -> None:
        """No fault is left but that bad rows are bad."""
        self.rig.sink.heal()
        self.rig.sink.poison(lambda row: row.user_id == BAD, names_rows=self.names_rows)
        for frozen in self.frozen:
            frozen.thawed.set()
        self.frozen.clear()

    @rule(is_full=st.booleans())
    def dead_letters(self, is_full: bool) -> None:
        self.rig.box.is_full = is_full

    # --- cancelling

    @rule()
    def cancel_the_flushes(self) -> None:
        self.may_abandon |= self.is_single
        self.run(self._cancel("log-writer flush"))

    @rule()
    def cancel_whoever_waits_for_a_row(self) -> None:
        for waiting in self.waiting:
            waiting.cancel()

    @late
    @rule()
    def cancel_the_collector(self) -> None:
        self.may_abandon = True
        self.run(self._cancel("log-writer collector"))

    @precondition(lambda self: self.rig.writer.stats().state == "draining")
    @rule()
    def cancel_the_drain(self) -> None:
        self.run(self._cancel("log-writer drain"))

    async def _cancel(self, name: str) -> None:
        for task in asyncio.all_tasks():
            if task.get_name() == name:
                task.cancel()

    # --- flush and stop

    @rule(deadline_s=st.sampled_from((0.0, 0.5, 60.0)))
    def flush(self, deadline_s: float) -> None:
        report = self.run(self.rig.writer.flush(deadline_s))

        if report.outcome == "ok":
            assert report.rows_left == 0

    @late
    @rule(deadline_s=st.sampled_from((0.0, 1.0, 60.0)), waits=st.booleans())
    def stop(self, deadline_s: float, waits: bool) -> None:
        self.may_abandon = True

        async def stop() -> None:
            stopping = asyncio.ensure_future(self.rig.writer.stop(deadline_s))
            self.waiting.append(stopping)
            if waits:
                loop = asyncio.get_running_loop()
                began = loop.time()
                await asyncio.wait({stopping})
                assert loop.time() - began <= deadline_s + 1.01

        self.run(stop())

    @late
    @rule()
    def close_now(self) -> None:
        self.may_abandon = True
        assert self.rig.writer.close_now().stats.state == "closed"

    # --- what always holds

    @invariant()
    def the_books_balance(self) -> None:
        self.steps += 1
        stats = self.rig.writer.stats()
        self.rig.check()
        counts = stats.counts
        held = len(self.places)
        assert stats.queue_rows == counts.queued + counts.in_flight + held
        if stats.state in ("new", "running", "draining"):
            assert stats.queue_rows <= self.max_queue_rows
        assert counts.dead_lettered == len(self.rig.box.letters)
        assert self.may_abandon or not counts.abandoned, "only a stop may give a row up"
        for name in SETTLED:
            assert getattr(counts, name) >= self.settled[name], f"{name} was taken back"
            self.settled[name] = getattr(counts, name)
        assert len(self.log.ids) == counts.abandoned == len(set(self.log.ids)), "abandoned, and not named"

    @invariant()
    def what_is_confirmed_is_stored(self) -> None:
        counts = self.rig.writer.stats().counts
        stored = self.run(self.rig.stored())
        assert set(stored) <= set(self.rig.given)
        assert counts.committed + counts.duplicates <= len(stored)

    # --- the end

    def teardown(self) -> None:
        try:
            if hasattr(self, "rig"):
                self.heal()
                self.rig.box.is_full = False
                self.run(self._end())
        finally:
            logging.getLogger("backends").propagate = True
            logging.getLogger("backends.writer").removeHandler(self.log)
            self.runner.close()

    async def _end(self) -> None:
        """Everything is well again: a fresh row flows, the stop is clean, and every row has its place."""
        rig = self.rig
        for place in self.places:
            place.release()
        self.places.clear()
        if rig.writer.stats().state == "running":
            await asyncio.sleep(HOUR_S)
            fresh = await rig.put()
            assert (await rig.writer.flush(HOUR_S)).outcome == "ok"
            assert fresh in await rig.stored(), "after the faults a row does not flow"
        report: StopReport = await rig.writer.stop()
        assert rig.writer.stats().state == "closed"
        assert self.may_abandon or report.is_clean, report
        await rig.check_end(report)
        await self._check_rows()
        await asyncio.wait_for(asyncio.gather(*self.waiting, return_exceptions=True), HOUR_S)
        for waited in self.waiting:
            if not waited.cancelled() and isinstance(error := waited.exception(), AssertionError):
                raise error

    async def _check_rows(self) -> None:
        """Each row that was given is stored as it was, or in the box, or named as abandoned."""
        rows = {row.id: row for row in await self.rig.rows()}
        named = {UUID(text) for text in self.log.ids}
        assert set(self.rig.given) == rows.keys() | set(self.rig.box.ids()) | named
        for row in rows.values():
            assert row == self.rig.expected(row)


TestRandomHistory = RandomHistory.TestCase
TestRandomHistory.settings = settings(stateful_step_count=30)
