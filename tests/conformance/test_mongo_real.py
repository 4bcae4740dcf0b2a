"""What only a real ``mongod`` can show: fail points, and what a plain imitation does not have.

Runs on ``MONGO_URL``, or on a ``mongod`` on PATH; skipped elsewhere, and case by case where the server was
not started with ``--setParameter enableTestCommands=1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pymongo.errors import OperationFailure
from servers.mongo_database import OwnDatabase

from backends.errors import SinkFatal, SinkRetryable, SinkRowsRejected
from backends.record import Batch
from backends.sink import Committed
from backends.testing import make_batch, make_record
from backends.testing.cases.base import outcome_of

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(autouse=True)
def _on_a_real_server(mongo: OwnDatabase) -> None:
    if not mongo.server.is_real:
        pytest.skip("not offered: needs a mongod; MONGO_URL=mongodb://... names one")


@pytest.fixture(params=["motor", "pymongo"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- fail points


async def test_a_connection_that_is_closed_stores_the_rows_once(mongo: OwnDatabase, driver: str) -> None:
    batch = make_batch(50)

    async with mongo.opened(driver=driver) as sink:
        await sink.ping()
        with failing(mongo, ["insert"], closeConnection=True):
            answer = await outcome_of(sink.write(batch))
        assert isinstance(answer, SinkRetryable) and answer.ambiguous
        await sink.write(batch)

    assert len(mongo.ids()) == 50


@pytest.mark.parametrize("code", [91, 189, 10107, 11600, 11602, 13435])
async def test_failover_readonly(mongo: OwnDatabase, driver: str, code: int) -> None:
    batch = make_batch(5)

    async with mongo.opened(driver=driver) as sink:
        await sink.ping()
        with failing(mongo, ["insert"], times=100, errorCode=code):
            assert isinstance(await outcome_of(sink.write(batch)), SinkRetryable)
        assert await sink.write(batch) == Committed(5)


async def test_rows_without_a_majority_are_not_committed_nor_known(mongo: OwnDatabase, driver: str) -> None:
    batch = make_batch(5)

    async with mongo.opened(driver=driver) as sink:
        await sink.ping()
        with failing(mongo, ["insert"], times=2, writeConcernError={"code": 64, "errmsg": "waiting"}):
            for _ in range(2):  # the second time every row is a duplicate
                error = await outcome_of(sink.write(batch))
                assert isinstance(error, SinkRetryable)
                assert (error.code, error.ambiguous) == ("write_concern", True)
        assert await sink.write(batch) == Committed(0, 5)


async def test_a_missing_right_is_fatal(mongo: OwnDatabase, driver: str) -> None:
    batch = make_batch(5)

    async with mongo.opened(driver=driver) as sink:
        await sink.ping()
        with failing(mongo, ["insert"], times=100, errorCode=13):
            error = await outcome_of(sink.write(batch))
        assert isinstance(error, SinkFatal)
        assert (error.code, "readWrite" in error.message) == ("Unauthorized", True)
        assert await sink.write(batch) == Committed(5)


# --- what imitations do not have


async def test_a_unique_index_that_comes_later_refuses_its_rows_alone(
    mongo: OwnDatabase, driver: str
) -> None:
    rows = (make_record(request_id="a"), make_record(request_id="b"), make_record(request_id="a"))

    async with mongo.opened(driver=driver) as sink:
        await sink.ping()
        with mongo.connected() as database:
            database["usage_logs"].create_index([("request_id", 1), ("user_id", 1)], unique=True)
        with pytest.raises(SinkRowsRejected) as caught:
            await sink.write(Batch.of(rows))

    assert {index: why.code for index, why in caught.value.rejected.items()} == {2: "server_11000"}
    assert caught.value.stored == Committed(2)


async def test_rows_that_a_validator_refuses_are_named_and_the_others_stored(
    mongo: OwnDatabase, driver: str
) -> None:
    rows = tuple(make_record(model=model) for model in ("a", "forbidden", "b"))

    async with mongo.opened(driver=driver) as sink:
        await sink.ping()
        with mongo.connected() as database:
            database.command("collMod", "usage_logs", validator={"model": {"$ne": "forbidden"}})
        with pytest.raises(SinkRowsRejected) as caught:
            await sink.write(Batch.of(rows))

    assert {index: why.code for index, why in caught.value.rejected.items()} == {1: "server_121"}
    assert caught.value.stored == Committed(2)
    assert "forbidden" not in str(caught.value)


async def test_retention_can_be_changed_and_ended(mongo: OwnDatabase, driver: str) -> None:
    for days in (90, 30, None, 60):
        async with mongo.opened(driver=driver, retention_days=days) as sink:
            await sink.migrate()
        with mongo.connected() as database:
            found = database["usage_logs"].index_information().get("retention", {})
        assert found.get("expireAfterSeconds") == (days * 86400 if days else None)


async def test_a_time_series_collection_is_fatal(mongo: OwnDatabase, driver: str) -> None:
    with mongo.connected() as database:
        database.create_collection("usage_logs", timeseries={"timeField": "timestamp"})

    async with mongo.opened(driver=driver) as sink:
        assert isinstance(await outcome_of(sink.write(make_batch(1))), SinkFatal)


async def test_a_view_is_fatal(mongo: OwnDatabase, driver: str) -> None:
    with mongo.connected() as database:
        database.create_collection("elsewhere")
        database.command("create", "usage_logs", viewOn="elsewhere", pipeline=[])

    async with mongo.opened(driver=driver) as sink:
        assert isinstance(await outcome_of(sink.write(make_batch(1))), SinkFatal)


# --- helpers


@contextmanager
def failing(mongo: OwnDatabase, commands: list[str], *, times: int = 1, **how: Any) -> Iterator[None]:
    """Within, the sink's next ``times`` of these commands fail like that."""
    data = {"failCommands": commands, "appName": "tallygate", **how}
    with mongo.connected() as database:
        admin = database.client.admin
        try:
            admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)
        except OperationFailure as error:
            pytest.skip(f"not offered: this server has no fail points ({error.code})")
        try:
            yield
        finally:
            admin.command("configureFailPoint", "failCommand", mode="off")
