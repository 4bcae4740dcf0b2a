"""ClickHouse: the exported suite against the real engine, its tables, and who may come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import pytest
from msgspec import structs
from pydantic import ValidationError
from servers import base
from servers.clickhouse_database import OwnDatabase, ids

from backends.clickhouse import ClickHouseOptions, ClickHouseSink
from backends.clickhouse_schema import Schema
from backends.errors import SinkFatal
from backends.record import Batch, Boot, UsageRecord
from backends.sink import Committed
from backends.testing import SinkConformance, make_batch, make_record
from backends.usage_query import UsageQuery


class TestClickHouse(SinkConformance):
    sink_cls = ClickHouseSink
    sink_name = "clickhouse"
    fault_modes = frozenset({"down"})

    @pytest.fixture(autouse=True)
    async def _own_database(self, clickhouse: OwnDatabase) -> AsyncIterator[None]:
        self.database = clickhouse
        async with clickhouse.proxy() as self.proxy:
            yield

    def make_options(self) -> ClickHouseOptions:
        return self.database.options(port=self.proxy.port)

    async def rows_in_sink(self) -> Sequence[UsageRecord]:
        return self.database.rows()

    async def boots_in_sink(self) -> Sequence[Boot]:
        return self.database.boots()

    @asynccontextmanager
    async def fault(self, mode: str) -> AsyncIterator[None]:
        assert mode == "down"
        self.proxy.refuse()
        yield
        await self.proxy.heal()


# --- schema


async def test_many_start_on_a_new_database_at_once(clickhouse: OwnDatabase) -> None:
    async with AsyncExitStack() as stack:
        sinks = [await stack.enter_async_context(clickhouse.opened()) for _ in range(8)]
        await asyncio.gather(*(sink.migrate() for sink in sinks))
        await asyncio.gather(*(sink.migrate() for sink in sinks))

    assert clickhouse.tables() == {"usage_logs", "usage_logs_once", "usage_boots"}


async def test_without_migrate_missing_tables_are_told_with_their_remedy(clickhouse: OwnDatabase) -> None:
    batch = make_batch(2)

    async with clickhouse.opened(migrate=False) as sink:
        for call in (sink.write(batch), sink.ping(), sink.read_usage(UsageQuery())):
            with pytest.raises(SinkFatal, match="run: tallygate migrate") as caught:
                await call
            assert caught.value.code == "schema_missing"
        assert clickhouse.tables() == set()
        await sink.migrate()

        assert await sink.write(batch) == Committed(2)


async def test_a_table_of_a_newer_program_is_fatal(clickhouse: OwnDatabase) -> None:
    await clickhouse.write(make_batch(1))
    clickhouse.run("ALTER TABLE usage_logs MODIFY COMMENT 'tallygate usage_logs, schema 2'")

    with pytest.raises(SinkFatal, match="schema 2, this program knows 1"):
        await clickhouse.write(make_batch(1))


@pytest.mark.parametrize(
    "change",
    [
        "DROP COLUMN tags",
        "ADD COLUMN extra String",
        "RENAME COLUMN cost TO price",
        "MODIFY COLUMN cost Nullable(Float64)",
    ],
)
async def test_a_table_with_other_columns_is_fatal(clickhouse: OwnDatabase, change: str) -> None:
    await clickhouse.write(make_batch(1))
    clickhouse.run(f"ALTER TABLE usage_logs {change}")

    with pytest.raises(SinkFatal) as caught:
        await clickhouse.write(make_batch(1))

    assert caught.value.code == "schema_differs"


@pytest.mark.parametrize(
    "change",
    [
        "MODIFY COLUMN model Nullable(String)",
        "MODIFY COLUMN user_id LowCardinality(Nullable(String))",
        "ADD COLUMN day Date MATERIALIZED toDate(timestamp)",
    ],
)
async def test_what_makes_no_difference_to_a_row_is_the_operators_to_choose(
    clickhouse: OwnDatabase, change: str
) -> None:
    batch = make_batch(2)
    await clickhouse.write(make_batch(1))
    clickhouse.run(f"ALTER TABLE usage_logs {change}")

    assert await clickhouse.write(batch) == Committed(2)


@pytest.mark.parametrize(
    "table",
    [
        "(id Int64, note String) ENGINE = MergeTree ORDER BY id",
        "ENGINE = MergeTree ORDER BY id AS usage_logs",
    ],
)
async def test_a_table_of_somebody_else_is_fatal_and_left_alone(clickhouse: OwnDatabase, table: str) -> None:
    await clickhouse.write(make_batch(1))
    clickhouse.run("RENAME TABLE usage_logs TO ours")
    clickhouse.run(f"CREATE TABLE usage_logs {table.replace('AS usage_logs', 'AS SELECT * FROM ours')}")

    with pytest.raises(SinkFatal) as caught:
        await clickhouse.write(make_batch(1))

    assert caught.value.code == "schema_differs"


async def test_a_table_that_is_dropped_while_we_run_is_fatal_and_then_made_anew(
    clickhouse: OwnDatabase,
) -> None:
    batch = make_batch(2)

    async with clickhouse.opened() as sink:
        await sink.write(make_batch(1))
        clickhouse.run("DROP TABLE usage_logs SYNC")
        with pytest.raises(SinkFatal) as caught:
            await sink.write(batch)
        assert caught.value.code == "UNKNOWN_TABLE"

        assert await sink.write(batch) == Committed(2)
    assert ids(clickhouse.rows()) == ids(batch.rows)


async def test_a_table_of_another_name_has_its_view_beside_it(clickhouse: OwnDatabase) -> None:
    batch = make_batch(2)

    await clickhouse.write(batch, table="calls")

    assert clickhouse.tables() == {"calls", "calls_once", "usage_boots"}
    assert ids(clickhouse.rows("calls_once")) == ids(batch.rows)


@pytest.mark.parametrize("last", ["crash", "complete"])
async def test_a_calls_row_beats_what_a_crash_left_of_it_whichever_comes_last(
    clickhouse: OwnDatabase, last: str
) -> None:
    """After kill -9 with a disk so slow that the row was in the table before it was in the journal."""
    row = make_record(status="success")
    crashed = structs.replace(
        row, status="cancelled", end_reason="crash", cost=None, prompt_tokens=None, seq=9
    )
    for each in (row, crashed) if last == "crash" else (crashed, row):
        await clickhouse.write(Batch.of((each,)))

    async with clickhouse.opened() as sink:
        (found,) = (await sink.read_usage(UsageQuery())).rows
    clickhouse.run("OPTIMIZE TABLE usage_logs FINAL")

    assert (found.status, found.cost) == ("success", row.cost)
    assert [each.status for each in clickhouse.rows()] == ["success"]


async def test_rows_older_than_their_retention_are_removed(clickhouse: OwnDatabase) -> None:
    old = make_batch(2, timestamp=datetime(2020, 1, 2, tzinfo=UTC))
    new = make_batch(2, timestamp=datetime.now(UTC))
    await clickhouse.write(old)
    await clickhouse.write(new, retention_days=400)
    await clickhouse.write(new, retention_days=300)
    assert "toIntervalDay(300)" in clickhouse.run("SHOW CREATE TABLE usage_logs")

    clickhouse.run("OPTIMIZE TABLE usage_logs FINAL")
    await clickhouse.write(new)  # without a retention of its own: what is set stays

    assert ids(clickhouse.rows()) == ids(new.rows)
    assert "toIntervalDay(300)" in clickhouse.run("SHOW CREATE TABLE usage_logs")


def test_a_replicated_table_on_a_cluster_is_a_matter_of_two_options() -> None:
    schema = Schema(is_replicated=True, cluster="{cluster}")

    statement = schema.statement("create_table")

    assert "`usage_logs` ON CLUSTER '{cluster}' (" in statement
    assert "ENGINE = ReplicatedReplacingMergeTree(is_whole)\n" in statement
    assert "ENGINE = ReplicatedReplacingMergeTree(is_closed)" in schema.statement("create_boots")


# --- who may come in


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"url": "http://default:s3cret-word@127.0.0.1:{port}"}, "AUTHENTICATION_FAILED"),
        ({"url": "http://stranger:s3cret-word@127.0.0.1:{port}"}, "AUTHENTICATION_FAILED"),
        ({"database": "s3cret-word"}, "UNKNOWN_DATABASE"),
    ],
)
async def test_whoever_is_not_let_in_is_told_why_without_the_password(
    clickhouse: OwnDatabase, changes: dict[str, str], code: str
) -> None:
    base.need_ours(clickhouse.server)
    given = {name: value.format(port=clickhouse.server.port) for name, value in changes.items()}

    async with ClickHouseSink.open(
        ClickHouseOptions.model_validate({"url": clickhouse.server.url, **given})
    ) as sink:
        for call in (sink.write(make_batch(1)), sink.ping(), sink.migrate()):
            with pytest.raises(SinkFatal) as caught:
                await call
            assert caught.value.code == code
            assert "url" not in given or "s3cret-word" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8123",
        "tcp://user:s3cret-word@localhost:9000",
        "http://user:s3cret-word@",
        "http://user:s3cret-word@localhost:no-port",
        "http://user:s3cret-word@localhost:8123/database",
        "http://localhost:8123?password=s3cret-word",
    ],
)
def test_a_malformed_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValidationError, match="is no address of a ClickHouse server") as caught:
        ClickHouseOptions.model_validate({"url": url})

    assert "s3cret-word" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [{"table": "usage logs"}, {"table": "a`b"}, {"table": "1st"}, {"database": "a'b"}, {"cluster": "a'b"}],
)
def test_names_that_are_no_identifiers_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        ClickHouseOptions.model_validate(given)


def test_options_do_not_show_the_password() -> None:
    assert "s3cret-word" not in repr(ClickHouseOptions.model_validate({"url": "http://u:s3cret-word@h"}))
