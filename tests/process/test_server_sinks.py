"""The real command on real servers: a stop in mid-flight, a server killed, a server frozen; every row once.

What is stored is read around the gateway, by the bare driver or the server's own interface. ClickHouse is
read by its view ``usage_logs_once``, as everybody is told to. The timeouts of the sinks are their defaults,
longer than an attempt: the core ends each attempt while the driver still waits.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from pydantic import SecretStr
from servers import base
from servers.places import PLACES, Place

pytestmark = pytest.mark.timeout(900)  # the first run on a machine installs the servers

NAMES = ("postgres", "mongo-motor", "mongo-pymongo", "clickhouse")
HERE = [name for name in NAMES if find_spec(PLACES[name].driver or "")]
"""An environment has the drivers of its own sinks and no others."""

CALLS = 300
CLIENTS = 60
FAULT_AFTER = 100
"""So many calls have ended when the fault comes."""
ATTEMPT_S = 1.0
BATCHING = {"linger_s": 0.02, "max_rows": 20, "attempt_timeout_s": ATTEMPT_S}
"""Small batches, so that some are being written whenever something happens."""


@pytest.fixture(scope="module", params=HERE)
def place(request) -> Place:
    return PLACES[request.param]


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[base.Server]:
    from servers.clickhouse import ClickHouseServer
    from servers.mongo import MongoServer
    from servers.postgres import PostgresServer

    kinds = {"postgres": PostgresServer, "mongo": MongoServer, "clickhouse": ClickHouseServer}
    yield from base.running(kinds[place.sink].find)


@pytest.fixture
async def own(place: Place, server: Any) -> AsyncIterator[Any]:
    """A place of the test's own in the server, gone afterwards."""
    name = f"test_{uuid4().hex[:16]}"
    if place.sink == "postgres":
        from servers.postgres_database import OwnSchema

        schema = OwnSchema(server, name)
        await schema.run(f"CREATE SCHEMA {name}")
        yield schema
        await schema.run(f"DROP SCHEMA {name} CASCADE")
    elif place.sink == "mongo":
        from servers.mongo_database import OwnDatabase

        database = OwnDatabase(server, name)
        yield database
        await asyncio.to_thread(database.drop)
    else:
        from servers import clickhouse_database

        with server.own_database() as name:
            yield clickhouse_database.OwnDatabase(server, name)


@pytest.fixture
def gateway_on(serve, place: Place, own: Any) -> Any:
    """``async with gateway_on() as gateway``: the real command, told by the environment where rows go."""
    options = own.options(**place.more)
    given = {name: _plain(getattr(options, name)) for name in options.model_fields_set}
    env = {"LOG_WRITER_STRATEGY": f"batch:{place.sink}"}

    def started(**batching: Any) -> Any:
        return serve(env=env, sinks={place.sink: given}, batching={**BATCHING, **batching})

    return started


def _plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


class Load:
    """A few hundred calls, every second one a stream, so many at once. ``promised`` are their rows' ids."""

    def __init__(self, gateway: Any) -> None:
        self._gateway = gateway
        self._is_struck = asyncio.Event()
        self._changed = asyncio.Condition()
        self.ended = 0
        self.running = 0
        self.promised: list[UUID] = []

    async def run(self) -> None:
        numbers = iter(range(CALLS))
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client(numbers))

    def struck(self) -> None:
        """The fault is there. The last calls wait for it; else it might come when all rows are stored."""
        self._is_struck.set()

    async def reaches(self, ended: int) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: self.ended >= ended)

    async def _client(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            if number >= 2 * FAULT_AFTER:
                await self._is_struck.wait()
            self.running += 1
            with suppress(aiohttp.ClientError):  # cut or never reached: a promise has to be kept all the same
                await self._call(number)
            self.running -= 1
            async with self._changed:
                self.ended += 1
                self._changed.notify_all()

    async def _call(self, number: int) -> None:
        is_stream = number % 2 == 0
        fake = {"delay_ms": number * 7 % 100, "chunk_ms": number * 3 % 40}
        async with self._gateway.chat(stream=is_stream, name=f"call{number}", **fake) as response:
            if "x-usage-id" in response.headers:
                self.promised.append(self._gateway.promised(response))
            await response.read()


async def waits(gateway: Any, seconds: float) -> None:
    """Returns once the oldest row has waited so long: asked again and again, for it has no event."""
    async with asyncio.timeout(60):
        while (ledger := await gateway.ledger())["oldest_row_s"] <= seconds:
            assert ledger["unaccounted"] == 0, ledger


async def settles(gateway: Any) -> None:
    """Returns once no row is on its way any more, without anybody stopping the gateway."""
    async with asyncio.timeout(60):
        while (ledger := await gateway.ledger())["queued"] or ledger["in_flight"]:
            assert ledger["unaccounted"] == 0, ledger


async def stored(place: Place, own: Any) -> Mapping[UUID, int]:
    """How often the server has each id."""
    if place.sink == "postgres":
        return Counter(await own.ids())
    if place.sink == "mongo":
        return Counter(await asyncio.to_thread(own.ids))
    rows = await asyncio.to_thread(own.query, "SELECT id FROM usage_logs_once")
    return Counter(UUID(row["id"]) for row in rows)


async def judge(gateway: Any, load: Load, place: Place, own: Any) -> None:
    """Every promise has exactly one row, and so has every accepted row; none was given up."""
    ids = await stored(place, own)
    assert len(set(load.promised)) == len(load.promised)
    assert [each for each in load.promised if ids[each] != 1] == []
    assert set(ids.values()) == {1}
    report = gateway.report
    assert report["strategy"] == f"batch:{place.sink}"
    told = {name: report[name] for name in ("accepted", "committed", "duplicates")}
    print(f"{place.sink} {place.more}: {len(load.promised)} promised, {told}")  # noqa: T201  # for the record
    assert report["accepted"] == len(ids) == report["committed"] + report["duplicates"], report
    assert not gateway.abandoned()


async def test_stop_in_mid_flight(gateway_on, place, own) -> None:
    async with gateway_on() as gateway:
        load = Load(gateway)
        raging = asyncio.ensure_future(load.run())
        await load.reaches(FAULT_AFTER)
        gateway.process.send(signal.SIGTERM)
        running = load.running
        load.struck()
        await raging
        assert await gateway.exits() == 0

        assert running and len(load.promised) >= FAULT_AFTER
        await judge(gateway, load, place, own)
        assert not gateway.report["shed"].keys() - {"draining", "closed"}


async def test_server_killed_and_restarted_under_load(gateway_on, place, own, server) -> None:
    base.need_ours(server)
    async with gateway_on() as gateway:
        load = Load(gateway)
        raging = asyncio.ensure_future(load.run())
        await load.reaches(FAULT_AFTER)
        await asyncio.to_thread(server.kill)
        load.struck()
        try:
            await waits(gateway, ATTEMPT_S)
        finally:
            await asyncio.to_thread(server.restart)
        await raging
        await settles(gateway)
        assert await gateway.stop() == 0

        assert len(load.promised) == CALLS
        await judge(gateway, load, place, own)


async def test_server_frozen_for_long_and_thawed(gateway_on, place, own, server) -> None:
    base.need_ours(server)
    async with gateway_on(flush_concurrency=1) as gateway:  # else the breaker's pause is most of the test
        load = Load(gateway)
        raging = asyncio.ensure_future(load.run())
        await load.reaches(FAULT_AFTER)
        await asyncio.to_thread(server.freeze)
        load.struck()
        try:
            await waits(gateway, 3.2 * ATTEMPT_S)
        finally:
            await asyncio.to_thread(server.thaw)
        await raging
        await settles(gateway)
        assert await gateway.stop() == 0

        assert len(load.promised) == CALLS
        await judge(gateway, load, place, own)
