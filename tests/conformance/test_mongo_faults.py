"""MongoDB by way of each driver: what the wire loses, and a server that is killed or frozen."""

from __future__ import annotations

import asyncio
import gc
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any
from uuid import UUID

import bson
import pytest
from servers.base import need_ours
from servers.mongo_database import OwnDatabase, collect_connecting_sockets
from servers.proxy import Proxy

from backends.errors import SinkRetryable
from backends.mongo import MongoSink
from backends.record import Batch
from backends.sink import Committed
from backends.testing import make_batch
from backends.testing.cases.base import bounded, outcome_of, settled
from backends.testing.rig import Rig, running, until
from backends.usage_query import SummaryQuery, UsageQuery

pytestmark = pytest.mark.timeout(900)  # the first run on a machine builds the server

SHORT_S = 0.5
LONG_S = 120.0
"""Longer than any test has patience."""


@pytest.fixture(params=["motor", "pymongo"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def no_socket_is_left_to_a_later_test() -> Iterator[None]:
    yield
    collect_connecting_sockets()


# --- the wire


class Tap(Proxy):
    """A well wire that remembers what was asked on it."""

    def __init__(self, *server: Any) -> None:
        super().__init__(*server)
        self._said: defaultdict[object, bytes] = defaultdict(bytes)
        """By connection: the driver looks after its server on one of its own, in the middle of a message."""

    def _is_hit(self, chunk: bytes, *where: Any) -> bool:
        _, link, is_reply = where
        self._said[link] += b"" if is_reply else chunk
        return super()._is_hit(chunk, *where)

    def commands(self, name: str) -> list[dict[str, Any]]:
        """Every command of this name, without the documents that came with it."""
        commands = [each for said in self._said.values() for each in _commands(said)]
        return [each for each in commands if next(iter(each)) == name]


async def test_an_insert_says_how_it_is_meant(mongo: OwnDatabase, driver: str) -> None:
    async with Tap(mongo.server.port, mongo.server.host) as tap:
        async with mongo.opened(port=tap.port, driver=driver, timeout_s=30) as sink:
            await sink.write(make_batch(1000, error_message="x" * 1000))

    (insert,) = tap.commands("insert")
    assert insert["ordered"] is False
    assert insert["writeConcern"] == {"w": "majority", "j": True}
    assert 0 < insert["maxTimeMS"] <= 30_000


async def test_many_calls_at_once_find_a_server_that_is_back(mongo: OwnDatabase, driver: str) -> None:
    batches = [make_batch(5) for _ in range(3)]  # one more, and the driver lets it wait for its turn

    async with mongo.proxy() as proxy:
        async with mongo.opened(port=proxy.port, driver=driver, timeout_s=LONG_S) as sink:
            await sink.ping()
            calls = [await _under_way(proxy, until_written(sink, batch)) for batch in batches]
            proxy.refuse()
            await proxy.heal()
            await asyncio.gather(*map(settled, calls))
            for call in calls:
                call.result()

    assert len(mongo.ids()) == 15


async def test_each_index_has_a_command_of_its_own(mongo: OwnDatabase, driver: str) -> None:
    async with Tap(mongo.server.port, mongo.server.host) as tap:
        async with mongo.opened(port=tap.port, driver=driver) as sink:
            await sink.migrate()
            made = len(tap.commands("createIndexes"))
            await sink.migrate()

    assert [len(each["indexes"]) for each in tap.commands("createIndexes")] == [1] * made
    assert made == 4


async def test_start_with_sink_down(mongo: OwnDatabase, driver: str) -> None:
    async with mongo.proxy() as proxy:
        proxy.refuse()
        inner = mongo.opened(port=proxy.port, driver=driver, timeout_s=SHORT_S)
        async with inner as sink, running(sink, linger_s=0, max_rows=8) as rig:
            given = await rig.put_many(20)
            assert isinstance(await first_outcome(rig), SinkRetryable)
            await proxy.heal()
            await rig.writer.flush(60)

    assert mongo.ids() == sorted(given)


async def test_ack_lost_after_commit(mongo: OwnDatabase, driver: str) -> None:
    batch = make_batch(5)

    async with mongo.proxy() as proxy, mongo.opened(port=proxy.port, driver=driver) as sink:
        await sink.ping()
        proxy.drop_reply(b"usage_logs")
        answer = await outcome_of(sink.write(batch))
        assert proxy.strikes == 1
        assert isinstance(answer, SinkRetryable) and answer.ambiguous
        assert await sink.write(batch) == Committed(0, 5)

    assert mongo.ids() == sorted(row.id for row in batch.rows)


async def test_a_request_that_is_cut_is_stored_once(mongo: OwnDatabase, driver: str) -> None:
    batches = [make_batch(200, error_message="x" * 500) for _ in range(5)]

    async with mongo.proxy() as proxy, mongo.opened(port=proxy.port, driver=driver) as sink:
        await sink.ping()
        for batch, count in zip(batches, (1, 20, 700, 3000, 90_000), strict=True):
            proxy.cut_after(count)
            await outcome_of(sink.write(batch))
            await proxy.heal()
            await sink.write(batch)

    assert len(mongo.ids()) == 1000


@pytest.mark.parametrize("mode", ["reset", "black_hole"])
async def test_a_connection_that_fails_is_given_up_in_time(
    mongo: OwnDatabase, driver: str, mode: str
) -> None:
    batch = make_batch(5)

    async with mongo.proxy() as proxy:
        async with mongo.opened(port=proxy.port, driver=driver, timeout_s=SHORT_S) as sink:
            await until_ready(sink)
            proxy.reset() if mode == "reset" else proxy.black_hole()
            for _ in range(3):
                assert isinstance(await outcome_of(sink.write(batch)), SinkRetryable)
            assert proxy.connections <= 10
            await proxy.heal()
            await until_ready(sink)

            assert sum_of(await until_written(sink, batch)) == 5
    assert len(mongo.ids()) == 5


# --- calls that nobody waits for any more


async def test_a_cancelled_call_is_over_at_once_though_nobody_answers(
    mongo: OwnDatabase, driver: str
) -> None:
    batch = make_batch(5)

    async with mongo.proxy() as proxy:
        async with mongo.opened(port=proxy.port, driver=driver, timeout_s=LONG_S) as sink:
            await sink.ping()
            for call in (sink.write(batch), sink.ping(), sink.read_usage(UsageQuery())):
                task = await _under_way(proxy, call)
                task.cancel()
                await settled(task)
                assert task.cancelled()
            proxy.refuse()
            await proxy.heal()
            await until_written(sink, batch)

    assert len(mongo.ids()) == 5


async def test_abort_ends_every_call_at_once_though_nobody_answers(mongo: OwnDatabase, driver: str) -> None:
    async with mongo.proxy() as proxy:
        async with mongo.opened(port=proxy.port, driver=driver, timeout_s=LONG_S) as sink:
            await sink.ping()
            calls = (sink.write(make_batch(5)), sink.ping(), sink.summarise_usage(SummaryQuery()))
            tasks = [await _under_way(proxy, call) for call in calls]
            sink.abort()
            await asyncio.gather(*map(settled, tasks))
            proxy.refuse()  # or motor's thread, and with it the test run, would wait that long

        errors = [task.exception() for task in tasks]
        assert [getattr(error, "code", error) for error in errors] == ["aborted"] * 3
        with pytest.raises(SinkRetryable, match="closing"):
            await sink.write(make_batch(1))
    gc.collect()


async def test_closing_waits_for_no_server_that_does_not_answer(mongo: OwnDatabase, driver: str) -> None:
    async with mongo.proxy() as proxy, AsyncExitStack() as stack:
        sink = await stack.enter_async_context(mongo.opened(port=proxy.port, driver=driver, timeout_s=LONG_S))
        await sink.ping()
        task = await _under_way(proxy, sink.write(make_batch(5)))
        await bounded(stack.aclose())
        await settled(task)
        proxy.refuse()

    assert isinstance(task.exception(), SinkRetryable)
    gc.collect()


# --- the server's process


async def test_server_sigkilled_and_restarted(mongo: OwnDatabase, driver: str) -> None:
    need_ours(mongo.server)

    async with mongo.opened(driver=driver) as inner, running(inner, linger_s=0, max_rows=16) as rig:
        given = await rig.put_many(100)
        assert await first_outcome(rig) == Committed(16)
        await asyncio.to_thread(mongo.server.kill)
        given += await rig.put_many(100)
        await asyncio.to_thread(mongo.server.restart)
        await rig.writer.flush(60)

    assert mongo.ids() == sorted(given)


async def test_server_frozen_and_thawed(mongo: OwnDatabase, driver: str) -> None:
    need_ours(mongo.server)
    limits: dict[str, Any] = {"linger_s": 0.0, "max_rows": 16, "attempt_timeout_s": 0.3}

    async with mongo.opened(driver=driver) as inner, running(inner, **limits) as rig:
        await inner.ping()
        with frozen(mongo):
            given = await rig.put_many(40)
            await until(lambda: sum(write.outcome is not None for write in rig.sink.writes) >= 6)
        await rig.writer.flush(60)

    assert mongo.ids() == sorted(given)


async def test_a_writer_stops_in_time_with_a_frozen_server(mongo: OwnDatabase, driver: str) -> None:
    need_ours(mongo.server)

    async with mongo.opened(driver=driver) as inner:
        await inner.ping()
        with frozen(mongo):
            async with running(inner, linger_s=0, max_rows=16) as rig:
                await rig.put_many(40)
                await until(lambda: bool(rig.sink.writes))
                report = await rig.writer.stop(0.1)
                assert report.stats.counts.abandoned == 40
                mongo.server.thaw()  # for the check of the rig, which reads


async def test_rows_are_kept_when_the_server_is_killed(mongo: OwnDatabase, driver: str) -> None:
    need_ours(mongo.server)
    promised: set[UUID] = set()

    async with mongo.opened(driver=driver) as sink:
        for _ in range(3):
            batches = [make_batch(20) for _ in range(3)]
            for batch in batches:
                await until_written(sink, batch)
            promised |= {row.id for batch in batches for row in batch.rows}
            await asyncio.to_thread(mongo.server.restart)

    assert set(mongo.ids()) == promised


# --- helpers


@contextmanager
def frozen(mongo: OwnDatabase) -> Iterator[None]:
    mongo.server.freeze()
    try:
        yield
    finally:
        mongo.server.thaw()


async def first_outcome(rig: Rig) -> object:
    """What the first write came to."""
    await until(lambda: bool(rig.sink.writes) and rig.sink.writes[0].outcome is not None)
    return rig.sink.writes[0].outcome


async def until_ready(sink: MongoSink) -> None:
    """With so little time a loaded machine may need another try; the driver looks again by itself."""
    async with asyncio.timeout(LONG_S):
        while isinstance(await outcome_of(sink.ping()), SinkRetryable):
            pass


async def until_written(sink: MongoSink, batch: Batch) -> Committed:
    async with asyncio.timeout(LONG_S):
        while isinstance(answer := await outcome_of(sink.write(batch)), SinkRetryable):
            pass
    assert isinstance(answer, Committed)
    return answer


async def _under_way(proxy: Proxy, call: Any) -> asyncio.Future[Any]:
    """``call``, asked on a wire on which nobody will answer."""
    proxy.black_hole()
    proxy.struck.clear()
    task = asyncio.ensure_future(call)
    await bounded(proxy.struck.wait())
    return task


def sum_of(answer: Committed) -> int:
    return answer.new + answer.duplicates


def _commands(said: bytes) -> Iterator[dict[str, Any]]:
    """The commands in a stream of whole messages; a message of this kind has the command first."""
    while said:
        size, kind = int.from_bytes(said[:4], "little"), int.from_bytes(said[12:16], "little")
        if kind == 2013 and said[20] == 0:
            length = int.from_bytes(said[21:25], "little")
            yield bson.decode(said[21 : 21 + length])
        said = said[size:]
