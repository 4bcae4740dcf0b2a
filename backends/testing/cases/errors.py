"""What goes wrong has one of four names, and afterwards the sink is as good as before."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ...errors import SinkBatchRejected, SinkRetryable, SinkRowsRejected
from ...record import Batch
from ...sink import Committed
from ..records import make_batch, make_full_record, make_record, nasty_texts
from .base import SinkCases, bounded, outcome_of


class ErrorCases(SinkCases):
    async def test_a_poisoned_row_is_refused_for_good(self) -> None:
        good = make_batch(2).rows
        poisoned = Batch.of((good[0], self.poison(), good[1]))

        async with self.open() as sink:
            error = await outcome_of(sink.write(poisoned))

            assert isinstance(error, SinkRowsRejected | SinkBatchRejected)
            assert error.code
            if isinstance(error, SinkRowsRejected):
                assert set(error.rejected) == {1}
        stored = good if isinstance(error, SinkRowsRejected) and error.stored else ()
        await self.check_stored(stored)
        assert not (stored and self.capabilities.atomic_batch), (
            "atomic_batch is declared: whole or not at all"
        )

    async def test_the_neighbours_of_a_poisoned_row_can_be_stored(self) -> None:
        good = make_batch(2)

        async with self.open() as sink:
            await outcome_of(sink.write(Batch.of((*good.rows, self.poison()))))
            answer = await bounded(sink.write(good))

        assert answer.new + answer.duplicates == 2
        await self.check_stored(good.rows)

    async def test_a_poisoned_row_alone_is_refused_again_and_again(self) -> None:
        poisoned = Batch.of((self.poison(),))

        async with self.open() as sink:
            for _ in range(2):
                error = await outcome_of(sink.write(poisoned))
                assert isinstance(error, SinkRowsRejected | SinkBatchRejected)

        await self.check_stored()

    async def test_an_error_carries_no_text_of_a_row(self) -> None:
        secret = "sk-do-not-log-me"
        bad = make_record(prompt_tokens=2**70, error_message=f"{secret}\ud800", user_id=secret, tags=secret)

        async with self.open() as sink:
            answer = await outcome_of(sink.write(Batch.of((bad,))))

        assert secret not in str(answer)

    async def test_text_that_nobody_sanitised_raises_no_error_of_the_driver(self) -> None:
        async with self.open() as sink:
            for text in nasty_texts:
                row = make_full_record(user_id=text, error_message=text, tags=text)
                answer = await outcome_of(sink.write(Batch.of((row,))))
                assert isinstance(answer, Committed | SinkBatchRejected | SinkRowsRejected), repr(text)

            assert await bounded(sink.write(make_batch(1))) == Committed(1, 0)

    async def test_values_of_a_wrong_type_raise_no_error_of_the_driver(self) -> None:
        wrong: list[dict[str, Any]] = [
            {"cost": "a lot"},
            {"timestamp": "yesterday"},
            {"timestamp": datetime.max},
            {"prompt_tokens": object()},
            {"latency_ms": "slow"},
            {"user_id": b"\xff"},
            {"tags": {"not": "a text"}},
        ]

        async with self.open() as sink:
            for fields in wrong:
                answer = await outcome_of(sink.write(Batch.of((make_record(**fields),))))
                assert isinstance(answer, Committed | SinkBatchRejected | SinkRowsRejected), fields

            assert await bounded(sink.write(make_batch(1))) == Committed(1, 0)

    async def test_a_sink_that_is_down_says_so_and_recovers(self) -> None:
        self.need_fault("down")
        batch = make_batch(3)

        async with self.open() as sink:
            async with self.fault("down"):
                assert isinstance(await outcome_of(sink.write(batch)), SinkRetryable)
                assert isinstance(await outcome_of(sink.ping()), SinkRetryable)
            await bounded(sink.ping())
            answer = await bounded(sink.write(batch))

        assert answer.new + answer.duplicates == 3
        await self.check_stored(batch.rows)

    async def test_a_sink_that_is_down_can_be_opened(self) -> None:
        self.need_fault("down")
        batch = make_batch(3)

        async with self.fault("down"), self.open() as sink:
            assert isinstance(await outcome_of(sink.write(batch)), SinkRetryable)
        async with self.open() as sink:
            await bounded(sink.write(batch))

        await self.check_stored(batch.rows)
