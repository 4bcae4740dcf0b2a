"""PostgreSQL: tables made, checked, partitioned by month, and rid of what is too old."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError
from servers.postgres_database import OwnSchema

from backends import postgres_schema
from backends.errors import SinkFatal
from backends.postgres import COPY_ABOVE_ROWS, PostgresOptions
from backends.record import Batch
from backends.sink import Committed
from backends.testing import make_batch, make_record, make_records
from backends.usage_query import UsageQuery

pytestmark = pytest.mark.timeout(300)  # the first run on a machine installs the server

JANUARY, FEBRUARY, MARCH = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))
MICROSECOND = timedelta(microseconds=1)
NOW = datetime.now(UTC)
OLD, YOUNG = NOW - timedelta(days=100), NOW - timedelta(days=1)


# --- options


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "localhost",
        "mysql://localhost/gateway",
        "postgresql://localhost:port/gateway",
        "postgresql://localhost:0/gateway",
        "postgresql://[::1/gateway",
        "postgresql://user:hunter2@2@localhost/gateway",
        "postgresql://localhost/gateway?sslmode=maybe",
        "postgresql://localhost/gateway?sslmode",
    ],
)
def test_a_dsn_that_is_none_is_refused_without_being_told(dsn: str) -> None:
    with pytest.raises(ValidationError, match="write postgresql://") as caught:
        PostgresOptions.model_validate({"dsn": dsn})

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://",
        "postgres://user:p%40ss@localhost/gateway",
        "postgresql://[::1]:5433/gateway?sslmode=verify-full",
        "postgresql://one:5432,two:5433/gateway?target_session_attrs=read-write",
        "postgresql:///gateway?host=/var/run/postgresql",
    ],
)
def test_a_dsn_may_have_any_form_and_is_kept_secret(dsn: str) -> None:
    options = PostgresOptions.model_validate({"dsn": dsn})

    assert options.dsn.get_secret_value() == dsn
    assert "p%40ss" not in repr(options)


@pytest.mark.parametrize(
    "table", ["", "usage-logs", "a.b.c", '"x"', "usage_boots", "s.usage_boots", "x" * 51]
)
def test_a_table_is_called_by_a_plain_name(table: str) -> None:
    with pytest.raises(ValidationError):
        PostgresOptions.model_validate({"table": table})


def test_the_server_gives_up_before_we_do() -> None:
    with pytest.raises(ValidationError, match="statement_timeout_s must not be above"):
        PostgresOptions.model_validate({"statement_timeout_s": 9, "command_timeout_s": 8})


# --- making and checking


async def test_a_table_of_a_newer_program_is_fatal(postgres: OwnSchema) -> None:
    await _write(postgres)
    await postgres.run("COMMENT ON TABLE usage_logs IS 'Tallygate usage rows, schema 2'")

    error = await _fatal_error(postgres)

    assert (error.code, "schema 2, this program knows 1" in error.message) == ("schema_newer", True)


@pytest.mark.parametrize(
    ("statement", "column"),
    [
        ("ALTER TABLE usage_logs DROP COLUMN tags", "tags"),
        ("ALTER TABLE usage_logs ADD COLUMN extra text", "extra"),
        ("ALTER TABLE usage_logs RENAME COLUMN cost TO price", "cost, price"),
        ("ALTER TABLE usage_logs ALTER COLUMN cost TYPE double precision", "cost"),
    ],
)
async def test_a_table_with_other_columns_is_fatal(postgres: OwnSchema, statement: str, column: str) -> None:
    await _write(postgres)
    await postgres.run(statement)

    error = await _fatal_error(postgres)

    assert (error.code, f"({column})" in error.message) == ("schema_differs", True)


async def test_a_table_of_somebody_else_is_fatal_and_left_alone(postgres: OwnSchema) -> None:
    await postgres.run("CREATE TABLE usage_logs (id serial PRIMARY KEY, note text)")

    error = await _fatal_error(postgres)

    assert error.code == "schema_differs"
    assert await postgres.tables() == ["usage_logs"]


@pytest.mark.parametrize("was", ["month", None])
async def test_a_table_that_is_partitioned_otherwise_is_fatal(postgres: OwnSchema, was: str | None) -> None:
    await _write(postgres, partition_by=was)

    error = await _fatal_error(postgres, partition_by=None if was else "month")

    assert (error.code, "partition_by" in error.message) == ("schema_differs", True)


async def test_a_table_that_is_gone_while_we_run_is_made_anew(postgres: OwnSchema) -> None:
    batch = make_batch(2)

    async with postgres.opened() as sink:
        await sink.write(batch)
        await postgres.run("ALTER TABLE usage_logs RENAME TO usage_logs_until_now")
        with pytest.raises(SinkFatal) as caught:
            await sink.write(batch)

        assert caught.value.code == "42P01"
        assert await sink.write(batch) == Committed(2)
    indexes = "SELECT 1 FROM pg_indexes WHERE schemaname = $1 AND tablename = 'usage_logs'"
    assert len(await postgres.fetch(indexes, postgres.name)) == 5


async def test_several_tables_share_the_boots_beside_them(postgres: OwnSchema) -> None:
    tables = [f"{postgres.name}.rows_{n}" for n in range(4)]

    await asyncio.gather(*(_write(postgres, table=table) for table in tables))

    assert await postgres.tables() == ["rows_0", "rows_1", "rows_2", "rows_3", "usage_boots"]


async def test_questions_find_their_indexes(postgres: OwnSchema) -> None:
    async with postgres.opened() as sink:
        await sink.write(make_batch(900))
    await postgres.run("ANALYZE usage_logs")

    for condition in ("true", "user_id = 'u'", "api_key_id = 'k'"):
        sql = f"SELECT * FROM usage_logs WHERE {condition} ORDER BY timestamp DESC, id DESC LIMIT 10"
        plan = "\n".join(row["QUERY PLAN"] for row in await postgres.fetch(f"EXPLAIN {sql}"))
        assert "Index Scan Backward" in plan and "Sort" not in plan, plan


# --- months


async def test_a_batch_is_cut_at_the_ends_of_months(postgres: OwnSchema) -> None:
    moments = (JANUARY, FEBRUARY - MICROSECOND, FEBRUARY, MARCH - MICROSECOND)
    batch = Batch.of(tuple(make_record(timestamp=moment) for moment in moments))

    async with postgres.opened(partition_by="month") as sink:
        assert await sink.write(batch) == Committed(4)
        assert await sink.write(batch) == Committed(0, 4)

    names = ["usage_boots", "usage_logs", "usage_logs_202601", "usage_logs_202602"]
    assert await postgres.tables() == names
    counts = await postgres.fetch(
        "SELECT tableoid::regclass::text AS name, count(*) AS n FROM usage_logs GROUP BY 1"
    )
    assert {row["name"]: row["n"] for row in counts} == {names[2]: 2, names[3]: 2}


async def test_a_large_batch_makes_its_months(postgres: OwnSchema) -> None:
    rows = make_records(COPY_ABOVE_ROWS) + make_records(5, timestamp=FEBRUARY)

    async with postgres.opened(partition_by="month") as sink:
        assert await sink.write(Batch.of(rows)) == Committed(len(rows))

    assert len(await postgres.ids()) == len(rows)


async def test_several_processes_may_begin_a_month_at_once(postgres: OwnSchema) -> None:
    batches = [make_batch(20) for _ in range(4)]

    await asyncio.gather(*(_write(postgres, batch, partition_by="month") for batch in batches))

    assert len(await postgres.ids()) == 80


async def test_a_month_that_is_dropped_while_we_run_is_made_again(postgres: OwnSchema) -> None:
    first, second = make_batch(2), make_batch(2)

    async with postgres.opened(partition_by="month") as sink:
        await sink.write(first)
        await postgres.run("DROP TABLE usage_logs_202601")

        assert await sink.write(second) == Committed(2)
    assert await postgres.ids() == sorted(row.id for row in second.rows)


async def test_a_partition_that_somebody_else_made_is_used(postgres: OwnSchema) -> None:
    async with postgres.opened(partition_by="month") as sink:
        await sink.migrate()
        await postgres.run(
            "CREATE TABLE year_2026 PARTITION OF usage_logs"
            " FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z')"
        )

        assert await sink.write(make_batch(2)) == Committed(2)
    assert await postgres.tables() == ["usage_boots", "usage_logs", "year_2026"]


async def test_a_year_has_twelve_months() -> None:
    starts = [postgres_schema._bounds(f"2026{month:02}")[0] for month in range(1, 13)]
    ends = [postgres_schema._bounds(f"2026{month:02}")[1] for month in range(1, 13)]

    assert starts[1:] == ends[:-1]
    assert (starts[0], ends[-1]) == ("2026-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00")


# --- retention


@pytest.mark.parametrize("partition_by", [None, "month"])
async def test_rows_beyond_retention_go_and_younger_ones_stay(
    postgres: OwnSchema, partition_by: str | None
) -> None:
    young = make_batch(3, timestamp=YOUNG)
    await _write(postgres, make_batch(5, timestamp=OLD), partition_by=partition_by)

    await _write(postgres, young, partition_by=partition_by, retention_days=30)

    assert await postgres.ids() == sorted(row.id for row in young.rows)


async def test_retention_drops_no_partition_of_somebody_else(postgres: OwnSchema) -> None:
    async with postgres.opened(partition_by="month") as sink:
        await sink.migrate()
    await postgres.run(
        "CREATE TABLE long_ago PARTITION OF usage_logs FOR VALUES FROM ('2001-01-01Z') TO ('2002-01-01Z')"
    )

    await _write(postgres, make_batch(1, timestamp=YOUNG), partition_by="month", retention_days=30)

    assert "long_ago" in await postgres.tables()


async def test_old_rows_go_in_pieces_one_with_each_write(
    postgres: OwnSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_schema, "DELETE_ROWS", 4)
    await _write(postgres, make_batch(6, timestamp=OLD))

    async with postgres.opened(retention_days=30) as sink:
        left = []
        for _ in range(3):
            await sink.write(make_batch(1, timestamp=YOUNG))
            left.append(len((await sink.read_usage(UsageQuery(end=YOUNG))).rows))

    assert left == [2, 0, 0]


async def test_retention_that_fails_fails_no_write(
    postgres: OwnSchema, caplog: pytest.LogCaptureFixture
) -> None:
    await _write(postgres, make_batch(2, timestamp=OLD), partition_by="month")

    async with postgres.connected() as reader, reader.transaction():
        await reader.fetch("SELECT * FROM usage_logs")  # holds what dropping needs, until the end
        with caplog.at_level(logging.WARNING):
            await _write(postgres, make_batch(2, timestamp=YOUNG), partition_by="month", retention_days=30)

    assert [record.getMessage() for record in caplog.records] == ["retention failed"]
    assert len(await postgres.ids()) == 4


# --- helpers


async def _write(postgres: OwnSchema, batch: Batch | None = None, **options: object) -> Committed:
    async with postgres.opened(**options) as sink:
        return await sink.write(batch or make_batch(1))


async def _fatal_error(postgres: OwnSchema, **options: object) -> SinkFatal:
    with pytest.raises(SinkFatal) as caught:
        await _write(postgres, **options)
    return caught.value
