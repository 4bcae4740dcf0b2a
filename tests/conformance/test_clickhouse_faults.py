"""ClickHouse: what the server refuses, what the wire loses, and a server that is killed or frozen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import pytest
from servers import base
from servers.clickhouse_database import OwnDatabase, ids, sorted_ids
from servers.proxy import Proxy

from backends.errors import SinkError, SinkRetryable
from backends.sink import Committed
from backends.testing import make_batch
from backends.testing.cases.base import PATIENCE_S, outcome_of
from backends.testing.rig import Rig, running, until

SHORT_S = 0.3
T = TypeVar("T")


# --- what the server says


async def test_too_many_parts_asks_for_fewer_and_larger_batches(clickhouse: OwnDatabase) -> None:
    batch = make_batch(2)

    async with clickhouse.opened() as sink:
        await sink.ping()
        clickhouse.run("SYSTEM STOP MERGES usage_logs")
        for _ in range(2):
            await sink.write(make_batch(1))
        clickhouse.run("ALTER TABLE usage_logs MODIFY SETTING parts_to_throw_insert = 1")
        with pytest.raises(SinkRetryable) as caught:
            await sink.write(batch)
        clickhouse.run("ALTER TABLE usage_logs RESET SETTING parts_to_throw_insert")

        assert (caught.value.code, caught.value.slow_down, caught.value.ambiguous) == (
            "TOO_MANY_PARTS",
            True,
            False,
        )
        assert await sink.write(batch) == Committed(2)


async def test_failover_readonly(clickhouse: OwnDatabase) -> None:
    batch = make_batch(2)

    async with clickhouse.opened() as sink:
        await sink.ping()
        clickhouse.run("ALTER TABLE usage_logs MODIFY SETTING table_readonly = 1")
        with pytest.raises(SinkRetryable) as caught:
            await sink.write(batch)
        clickhouse.run("ALTER TABLE usage_logs MODIFY SETTING table_readonly = 0")

        assert not caught.value.ambiguous
        assert await sink.write(batch) == Committed(2)


# --- the wire


class Tap(Proxy):
    """A well wire that remembers what was asked on it."""

    said = b""

    def _is_hit(self, chunk: bytes, *where: Any) -> bool:
        is_reply = where[-1]
        self.said += b"" if is_reply else chunk
        return super()._is_hit(chunk, *where)


async def test_a_write_is_one_request_that_says_how_it_is_meant(clickhouse: OwnDatabase) -> None:
    batch = make_batch(5)

    async with Tap(clickhouse.server.port, clickhouse.server.host) as tap:
        async with clickhouse.opened(port=tap.port) as sink:
            await sink.ping()
            tap.said = b""
            await sink.write(batch)

    head = tap.said.partition(b"\r\n")[0].decode()
    assert tap.said.count(b" HTTP/1.1\r\n") == 1, "the types of the columns were asked for"
    assert "async_insert=0" in head
    assert f"insert_deduplication_token={batch.id}" in head
    assert "s%40s" not in head, "the password is in the address"


async def test_start_with_sink_down(clickhouse: OwnDatabase) -> None:
    async with clickhouse.proxy() as proxy:
        proxy.refuse()
        async with clickhouse.opened(port=proxy.port) as inner, running(inner, linger_s=0, max_rows=8) as rig:
            given = await rig.put_many(20)
            assert isinstance(await first_outcome(rig), SinkRetryable)
            await proxy.heal()
            await rig.writer.flush(30)

    assert sorted_ids(clickhouse.rows()) == sorted(given)


@pytest.mark.parametrize("times", [1, 2])
async def test_ack_lost_after_commit(clickhouse: OwnDatabase, times: int) -> None:
    """The driver sends once more by itself; only when that reply is lost as well do we hear of it."""
    batch = make_batch(5)

    async with clickhouse.proxy() as proxy, clickhouse.opened(port=proxy.port) as sink:
        await sink.ping()
        proxy.drop_reply(b"insert_deduplication_token", times=times)
        answer = await outcome_of(sink.write(batch))
        assert proxy.strikes == times
        if times == 2:
            assert isinstance(answer, SinkRetryable) and answer.ambiguous
        assert await sink.write(batch) == Committed(5)

    assert len(clickhouse.rows()) == 5


async def test_a_request_that_is_cut_stores_nothing_or_all(clickhouse: OwnDatabase) -> None:
    batches = [make_batch(200, error_message="x" * 500) for _ in range(5)]

    async with clickhouse.proxy() as proxy, clickhouse.opened(port=proxy.port) as sink:
        await sink.ping()
        for batch, count in zip(batches, (1, 200, 700, 3000, 9000), strict=True):
            proxy.cut_after(count)
            await outcome_of(sink.write(batch))
            await proxy.heal()
            assert await sink.write(batch) == Committed(200)

    assert len(clickhouse.rows()) == 1000


@pytest.mark.parametrize("mode", ["reset", "black_hole", "half_open"])
async def test_a_connection_that_fails_is_given_up_in_time(clickhouse: OwnDatabase, mode: str) -> None:
    batch = make_batch(5)

    async with clickhouse.proxy() as proxy:
        async with clickhouse.opened(port=proxy.port, timeout_s=SHORT_S, connect_timeout_s=SHORT_S) as sink:
            await answer_of(sink.ping)
            proxy.reset() if mode == "reset" else proxy.black_hole()
            for _ in range(3):
                answer = await outcome_of(sink.write(batch))
                assert isinstance(answer, SinkRetryable) and answer.ambiguous
            assert proxy.connections <= 2
            await proxy.heal()

            assert await answer_of(partial(sink.write, batch)) == Committed(5)
    assert len(clickhouse.rows()) == 5


# --- the server's process


async def test_server_sigkilled_and_restarted(clickhouse: OwnDatabase) -> None:
    base.need_ours(clickhouse.server)

    async with clickhouse.opened() as inner, running(inner, linger_s=0, max_rows=16) as rig:
        given = await rig.put_many(100)
        assert await first_outcome(rig) == Committed(16)
        await asyncio.to_thread(clickhouse.server.kill)
        given += await rig.put_many(100)
        await asyncio.to_thread(clickhouse.server.restart)
        await rig.writer.flush(60)

    assert sorted_ids(clickhouse.rows()) == sorted(given)


async def test_server_frozen_and_thawed(clickhouse: OwnDatabase) -> None:
    base.need_ours(clickhouse.server)
    limits: dict[str, Any] = {"linger_s": 0.0, "max_rows": 16, "attempt_timeout_s": SHORT_S}

    async with clickhouse.opened() as inner, running(inner, **limits) as rig:
        await inner.ping()
        clickhouse.server.freeze()
        try:
            given = await rig.put_many(40)
            await until(lambda: sum(write.outcome is not None for write in rig.sink.writes) >= 3)
        finally:
            clickhouse.server.thaw()
        await rig.writer.flush(60)

    assert sorted_ids(clickhouse.rows()) == sorted(given)


async def test_rows_are_kept_when_the_server_is_killed(clickhouse: OwnDatabase) -> None:
    base.need_ours(clickhouse.server)
    promised: set[UUID] = set()

    async with clickhouse.opened() as sink:
        for _ in range(3):
            batches = [make_batch(20) for _ in range(3)]
            for batch in batches:
                await sink.write(batch)
            promised |= {row.id for batch in batches for row in batch.rows}
            await asyncio.to_thread(clickhouse.server.restart)

    assert ids(clickhouse.rows()) == promised


async def answer_of(call: Callable[[], Awaitable[T]]) -> T:
    """With so little time for an answer, a loaded machine may need to be asked again."""
    async with asyncio.timeout(PATIENCE_S):
        while isinstance(answer := await outcome_of(call()), SinkRetryable):
            pass
    assert not isinstance(answer, SinkError)
    return answer


async def first_outcome(rig: Rig) -> object:
    """What the first write came to."""
    await until(lambda: bool(rig.sink.writes) and rig.sink.writes[0].outcome is not None)
    return rig.sink.writes[0].outcome
