"""MongoDB by way of each driver: the exported suite, what lies in the collection, and what it has to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar, Literal

import pytest
import uvloop
from bson import Int64
from pydantic import ValidationError
from servers.base import need_ours
from servers.mongo_database import OwnDatabase, collect_connecting_sockets

import backends.mongo
from backends.errors import SinkFatal, SinkRetryable, SinkRowsRejected
from backends.memory import MemoryDatabase, MemorySink
from backends.mongo import MongoOptions, MongoSink
from backends.record import Batch, Boot, UsageRecord
from backends.sink import Committed
from backends.testing import SinkConformance, make_batch, make_full_record, make_record, make_varied_records
from backends.testing.cases.base import outcome_of
from backends.usage_query import SummaryQuery, UsageQuery

pytestmark = pytest.mark.timeout(900)  # the first run on a machine builds the server

SECRET = "p4ss-w0rd"


class MongoCases(SinkConformance):
    sink_cls = MongoSink
    sink_name = "mongo"
    fault_modes = frozenset({"down"})
    driver: ClassVar[Literal["motor", "pymongo"]]

    @pytest.fixture(autouse=True)
    def _own_database(self, mongo: OwnDatabase) -> None:
        self.own = mongo

    def make_options(self) -> MongoOptions:
        return self.own.options(driver=self.driver, timeout_s=4)  # less to wait for while it is down

    async def rows_in_sink(self) -> Sequence[UsageRecord]:
        return await asyncio.to_thread(self.own.rows)

    async def boots_in_sink(self) -> Sequence[Boot]:
        return await asyncio.to_thread(self.own.boots)

    @asynccontextmanager
    async def fault(self, mode: str) -> AsyncIterator[None]:
        assert mode == "down"
        need_ours(self.own.server)
        await asyncio.to_thread(self.own.server.kill)
        try:
            yield
        finally:
            await asyncio.to_thread(self.own.server.restart)


class TestMongoMotor(MongoCases):
    driver = "motor"


class TestMongoPymongo(MongoCases):
    driver = "pymongo"


@pytest.fixture(params=["motor", "pymongo"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- options


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://gateway:{SECRET}@localhost",
        f"mongodb://gateway:{SECRET}",
        f"mongodb://gateway:{SECRET}/@localhost",
        f"mongodb://gateway:{SECRET}@localhost:port",
        f"mongodb://gateway:{SECRET}@localhost/?no_such_option=1",
        f"mongodb://gateway:{SECRET}@localhost/?tls={SECRET}",
        "",
    ],
)
def test_a_connection_string_that_cannot_be_used_is_one_line_without_its_password(uri: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MongoOptions.model_validate({"uri": uri})

    (error,) = caught.value.errors()
    assert "is no connection string (" in error["msg"]
    assert "\n" not in error["msg"]
    assert SECRET not in str(caught.value)


def test_options_hide_the_password() -> None:
    options = MongoOptions.model_validate({"uri": f"mongodb://gateway:{SECRET}@localhost"})

    assert SECRET not in f"{options!r} {options} {options.model_dump_json()}"


@pytest.mark.parametrize("name", ["usage_boots", "usage_schema", "system.users", "$cmd", "a b", ""])
def test_a_collection_of_another_use_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        MongoOptions.model_validate({"collection": name})


def test_a_driver_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.mongo, "find_spec", lambda name: None)

    with pytest.raises(ValidationError, match=r"motor is not installed; pip install 'tallygate\[mongo\]'"):
        MongoOptions.model_validate({"driver": "motor"})


async def test_opening_needs_no_server_and_no_name_service(driver: str) -> None:
    for uri in ("mongodb://127.0.0.1:1", "mongodb+srv://no.such.host.invalid"):
        options = MongoOptions.model_validate({"uri": uri, "driver": driver, "timeout_s": 0.5})
        async with MongoSink.open(options) as sink:
            with pytest.raises(SinkRetryable if "srv" not in uri else (SinkRetryable, SinkFatal)):
                await sink.ping()
        del sink
        collect_connecting_sockets()


async def test_a_wrong_password_is_fatal_and_not_told(mongo: OwnDatabase, driver: str) -> None:
    rest = mongo.server.url.partition("://")[2].rpartition("@")[2]

    async with mongo.opened(driver=driver, uri=f"mongodb://nobody:opensesame@{rest}") as sink:
        error = await outcome_of(sink.ping())

    assert isinstance(error, SinkFatal)
    assert error.code == "AuthenticationFailed"
    assert "opensesame" not in f"{error} {error!r}"


# --- documents


async def test_money_is_whole_and_time_is_there_twice(mongo: OwnDatabase) -> None:
    row = make_full_record()

    async with mongo.opened() as sink:
        await sink.write(Batch.of((row,)))

    (found,) = mongo.documents()
    assert (found["_id"], found["boot_id"]) == (row.id, row.boot_id)
    assert type(found["cost"]) is Int64 and found["cost"] == 123456789123456789
    moment = row.timestamp.replace(microsecond=row.timestamp.microsecond // 1000 * 1000)
    assert found["timestamp"] == moment
    assert type(found["timestamp_us"]) is Int64


async def test_a_cost_of_no_whole_billionths_is_rounded_half_even(mongo: OwnDatabase) -> None:
    costs = ("0.0000000005", "0.0000000015", "0.00000000249", "-1.5")
    rows = [make_record(cost=Decimal(cost), request_id=f"req-{n}") for n, cost in enumerate(costs)]

    async with mongo.opened() as sink:
        await sink.write(Batch.of(tuple(rows)))

    found = {each["request_id"]: each["cost"] for each in mongo.documents()}
    assert found == {"req-0": 0, "req-1": 2, "req-2": 2, "req-3": -1_500_000_000}


async def test_every_row_that_cannot_be_stored_is_named_and_the_others_are_stored(mongo: OwnDatabase) -> None:
    bad: dict[int, dict[str, Any]] = {
        1: {"prompt_tokens": 2**63},
        3: {"user_id": "half an emoji \ud83d"},
        4: {"latency_ms": float("nan")},
        6: {"ttft_ms": float("inf")},
        7: {"user_id": 7},
    }
    rows = tuple(make_record(**bad.get(n, {})) for n in range(9))

    async with mongo.opened() as sink:
        with pytest.raises(SinkRowsRejected) as caught:
            await sink.write(Batch.of(rows))

    assert {index: why.code for index, why in caught.value.rejected.items()} == {
        1: "out_of_range",
        3: "UnicodeEncodeError",
        4: "not_finite",
        6: "not_finite",
        7: "wrong_type",
    }
    assert caught.value.stored == Committed(4)
    assert mongo.ids() == sorted(rows[n].id for n in (0, 2, 5, 8))


async def test_a_document_that_somebody_edited_is_named(mongo: OwnDatabase) -> None:
    batch = make_batch(1)

    async with mongo.opened() as sink:
        await sink.write(batch)
        with mongo.connected() as database:
            database["usage_logs"].update_one({}, {"$set": {"timestamp_us": "yesterday"}})

        with pytest.raises(SinkFatal, match=str(batch.rows[0].id)):
            await sink.read_usage(UsageQuery())


async def test_a_summary_of_many_pages_is_that_of_one(
    mongo: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_varied_records(60)
    reference = MemorySink(MemoryDatabase({row.id: row for row in rows}))

    async with mongo.opened() as sink:
        await sink.write(Batch.of(rows))
        for page_rows in (1, 7, 59, 60, 61):
            monkeypatch.setattr(backends.mongo, "_SUMMARY_PAGE_ROWS", page_rows)
            for query in (SummaryQuery(), SummaryQuery(group_by=("model", "day"))):
                assert await sink.summarise_usage(query) == await reference.summarise_usage(query)


async def test_rows_of_one_moment_stay_in_order_over_pages_of_a_summary(
    mongo: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.mongo, "_SUMMARY_PAGE_ROWS", 3)
    rows = tuple(make_record() for _ in range(20))

    async with mongo.opened() as sink:
        await sink.write(Batch.of(rows))
        (total,) = await sink.summarise_usage(SummaryQuery())

    assert total.calls == 20


# --- schema


async def test_indexes_are_made_for_each_question(mongo: OwnDatabase) -> None:
    async with mongo.opened() as sink:
        await sink.ping()

    with mongo.connected() as database:
        found = database["usage_logs"].index_information()
    assert {name: [field for field, _ in each["key"]] for name, each in found.items()} == {
        "_id_": ["_id"],
        "by_time": ["timestamp_us", "_id"],
        "by_user": ["user_id", "timestamp_us", "_id"],
        "by_key": ["api_key_id", "timestamp_us", "_id"],
        "by_request": ["request_id"],
    }


async def test_a_collection_of_a_newer_program_is_fatal(mongo: OwnDatabase) -> None:
    async with mongo.opened() as sink:
        await sink.write(make_batch(2))
    with mongo.connected() as database:
        database["usage_schema"].update_one({"_id": "usage_logs"}, {"$set": {"version": 2}})

    async with mongo.opened() as sink:
        for call in (sink.write(make_batch(1)), sink.migrate()):
            with pytest.raises(SinkFatal, match="schema 2, this program knows 1"):
                await call
    assert len(mongo.documents()) == 2


async def test_documents_of_somebody_else_are_fatal_and_left_alone(mongo: OwnDatabase) -> None:
    with mongo.connected() as database:
        database["usage_logs"].insert_one({"_id": 1, "note": "mine"})

    async with mongo.opened() as sink:
        for call in (sink.write(make_batch(1)), sink.ping(), sink.migrate()):
            with pytest.raises(SinkFatal) as caught:
                await call
            assert caught.value.code == "schema_differs"

    assert mongo.documents() == [{"_id": 1, "note": "mine"}]
    with mongo.connected() as database:
        assert list(database["usage_logs"].index_information()) == ["_id_"]


@pytest.mark.parametrize(
    "change", [{"$unset": {"tags": ""}}, {"$set": {"extra": 1}}, {"$rename": {"cost": "c"}}]
)
async def test_documents_with_other_fields_are_fatal(mongo: OwnDatabase, change: dict[str, Any]) -> None:
    async with mongo.opened() as sink:
        await sink.write(make_batch(1))
    with mongo.connected() as database:
        database["usage_logs"].update_one({}, change)

    async with mongo.opened() as sink:
        with pytest.raises(SinkFatal, match="other fields"):
            await sink.write(make_batch(1))


async def test_a_unique_index_that_could_refuse_rows_is_fatal_until_it_is_gone(mongo: OwnDatabase) -> None:
    batch = make_batch(2)
    with mongo.connected() as database:
        database["usage_logs"].create_index("request_id", unique=True, name="mine")

    async with mongo.opened() as sink:
        with pytest.raises(SinkFatal, match="unique index.*mine.*; drop it"):
            await sink.write(batch)
        with mongo.connected() as database:
            database["usage_logs"].drop_index("mine")

        assert await sink.write(batch) == Committed(2)


async def test_a_capped_collection_is_fatal(mongo: OwnDatabase) -> None:
    with mongo.connected() as database:
        database.create_collection("usage_logs", capped=True, size=1_000_000)

    async with mongo.opened() as sink:
        with pytest.raises(SinkFatal, match="no plain collection"):
            await sink.write(make_batch(1))


async def test_a_database_that_is_dropped_while_we_run_is_made_again_by_a_ping(mongo: OwnDatabase) -> None:
    batch = make_batch(2)

    async with mongo.opened() as sink:
        await sink.write(batch)
        mongo.drop()
        await sink.ping()
        assert await sink.write(batch) == Committed(2)

    with mongo.connected() as database:
        assert "by_time" in database["usage_logs"].index_information()


async def test_retention_is_an_index_or_a_warning(
    mongo: OwnDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    batch = make_batch(2, timestamp=make_record().timestamp + timedelta(days=30_000))

    async with mongo.opened(retention_days=90) as sink:
        assert await sink.write(batch) == Committed(2)

    with mongo.connected() as database:
        found = database["usage_logs"].index_information().get("retention")
    if mongo.server.is_real:
        assert found and found["expireAfterSeconds"] == 90 * 86400
    else:
        assert found is None
        assert [each.message for each in caplog.records] == ["retention_refused"]


# --- the other loop


def test_both_drivers_run_on_the_loop_of_the_gateway(mongo: OwnDatabase, driver: str) -> None:
    batch = make_batch(50)

    async def use() -> int:
        async with mongo.opened(driver=driver) as sink:
            await sink.write(batch)
            return len((await sink.read_usage(UsageQuery())).rows)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(use()) == 50
