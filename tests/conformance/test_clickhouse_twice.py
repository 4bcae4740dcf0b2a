"""ClickHouse: a row that was sent twice counts once, and summaries say what the reference says."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from msgspec import structs
from servers.clickhouse_database import OwnDatabase, ids, sorted_ids

from backends.record import Batch, UsageRecord
from backends.sink import Committed
from backends.summary import summarise
from backends.testing import lose_ack, make_batch, make_full_record, make_record
from backends.testing.cases.base import read_all
from backends.testing.rig import SEED, running
from backends.usage_query import SummaryQuery, UsageQuery

LOAD = Path(__file__).parents[2] / "load"

# --- twice is once


async def test_a_batch_that_is_sent_again_lies_there_once(clickhouse: OwnDatabase) -> None:
    batch = make_batch(50)

    async with clickhouse.opened() as sink:
        for _ in range(3):
            await sink.write(batch)

    assert len(clickhouse.rows()) == 50


async def test_a_batch_is_split_where_months_meet_and_each_part_is_known_again(
    clickhouse: OwnDatabase,
) -> None:
    rows = [make_record(timestamp=datetime(2026, month, 1, tzinfo=UTC)) for month in (2, 1, 3, 1, 2)]
    last_moment = make_record(timestamp=datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC))
    batch = Batch.of((*rows, last_moment))

    async with clickhouse.opened() as sink:
        assert await sink.write(batch) == Committed(6)
        assert await sink.write(batch) == Committed(6)

    assert len(clickhouse.rows()) == 6
    parts = clickhouse.query(
        "SELECT partition, sum(rows) AS n FROM system.parts WHERE active AND database = currentDatabase()"
        " AND table = 'usage_logs' GROUP BY partition ORDER BY partition"
    )
    assert [(each["partition"], int(each["n"])) for each in parts] == [
        ("202601", 3),
        ("202602", 2),
        ("202603", 1),
    ]


async def test_a_batch_over_more_months_than_one_insert_may_touch_is_stored(clickhouse: OwnDatabase) -> None:
    months = [datetime(2000 + n // 12, n % 12 + 1, 1, tzinfo=UTC) for n in range(120)]
    batch = Batch.of(tuple(make_record(timestamp=month) for month in months))

    assert await clickhouse.write(batch) == Committed(120)
    assert len(clickhouse.rows()) == 120


async def test_an_id_under_which_other_rows_were_stored_takes_no_more(clickhouse: OwnDatabase) -> None:
    """Why a batch is never changed under its id: the server believes the token, not the rows."""
    first, second = make_batch(3), make_batch(3)

    async with clickhouse.opened() as sink:
        await sink.write(first)
        await sink.write(Batch(first.id, second.rows))

    assert ids(clickhouse.rows()) == ids(first.rows)


async def test_token_reuse_forbidden(clickhouse: OwnDatabase) -> None:
    async with clickhouse.opened() as inner, running(inner, max_rows=64, linger_s=0) as rig:
        rig.sink.script(lose_ack())
        rig.sink.poison(lambda row: row.user_id == "bad")
        good = [await rig.put(cost=Decimal("0.5")) for _ in range(32)]
        bad = await rig.put(user_id="bad", cost=Decimal(1))
        good += [await rig.put(cost=Decimal("0.5")) for _ in range(31)]
        await rig.writer.flush(30)
        writes = {(write.batch_id, write.row_ids) for write in rig.sink.writes}
        (total,) = await inner.summarise_usage(SummaryQuery())

    assert len(writes) == len({batch_id for batch_id, _ in writes}), "an id was given to other rows"
    assert len(writes) > 2, "nothing was bisected"
    assert sorted_ids(clickhouse.rows()) == sorted(good)
    assert (total.calls, total.cost) == (63, Decimal("31.5"))
    assert rig.box.ids() == [bad]


async def test_dedup_window_evicted(clickhouse: OwnDatabase) -> None:
    batch = make_batch(5, cost=Decimal("0.1"))

    async with clickhouse.opened() as sink:
        await clickhouse.forget_tokens(sink, batch)
        await sink.write(batch)

        assert len(clickhouse.rows()) == 5 + 5 + 3, "the engine remembered it after all"
        for limit in (1, 2, 3, 4, 7, 8, 100):
            rows = await read_all(sink, page_rows=limit)
            assert len(rows) == len(ids(rows)) == 8
        (total,) = await sink.summarise_usage(SummaryQuery(filters=(("user_id", "u"),)))
        assert (total.calls, total.cost) == (0, Decimal(0))
        (total,) = await sink.summarise_usage(SummaryQuery())
    assert (total.calls, total.cost) == (8, Decimal("0.5") + 3 * make_record().cost)  # type: ignore[operator]
    assert len(clickhouse.rows("usage_logs_once")) == 8
    clickhouse.run("SYSTEM START MERGES usage_logs")
    clickhouse.run("OPTIMIZE TABLE usage_logs FINAL")
    assert len(clickhouse.rows()) == 8


async def test_every_row_is_on_one_page_when_all_of_them_lie_there_twice(clickhouse: OwnDatabase) -> None:
    batch = make_batch(20)

    async with clickhouse.opened() as sink:
        await clickhouse.forget_tokens(sink, batch)
        for row in batch.rows:
            await sink.write(Batch.of((row,)))
        for limit in (1, 2, 3, 19, 20, 22, 23, 24):
            rows = await read_all(sink, page_rows=limit)
            assert len(rows) == len(ids(rows)) == 23


async def test_the_load_harness_counts_what_readers_see_and_tells_how_much_lies_there(
    clickhouse: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(LOAD)
    usage_rows = importlib.import_module("usage_rows")
    where = {"sink": "clickhouse", "url": clickhouse.server.url, "database": clickhouse.name}
    batch = make_batch(20)
    assert (usage_rows.read_rows(where), usage_rows.stored_rows(where)) == ([], 0)

    async with clickhouse.opened() as sink:
        await clickhouse.forget_tokens(sink, batch)
        await sink.write(batch)

    assert (len(usage_rows.read_rows(where)), usage_rows.stored_rows(where)) == (23, 43)


# --- summaries


@pytest.mark.parametrize(
    "group_by", [(), ("user_id",), ("model", "status"), ("hour",), ("day", "provider"), ("month",)]
)
async def test_a_summary_is_what_the_reference_says(
    clickhouse: OwnDatabase, group_by: tuple[str, ...]
) -> None:
    rows = scattered_rows(700)

    async with clickhouse.opened() as sink:
        await sink.write(Batch.of(rows[:400]))
        await sink.write(Batch.of(rows[300:]))
        for filters in ((), (("user_id", "u1"),), (("user_id", "nobody"),)):
            query = SummaryQuery(group_by=group_by, filters=filters)
            wanted = summarise(matching(rows, filters), query)
            assert await sink.summarise_usage(query) == wanted


async def test_ranks_are_exact_for_every_number_of_calls(clickhouse: OwnDatabase) -> None:
    """One group for each number of calls from 1 to 120: a share times a count has to be rounded exactly."""
    rows = tuple(
        make_record(user_id=f"u{count}", latency_ms=float(n)) for count in range(1, 121) for n in range(count)
    )

    async with clickhouse.opened() as sink:
        await sink.write(Batch.of(rows))
        query = SummaryQuery(group_by=("user_id",))
        assert await sink.summarise_usage(query) == summarise(rows, query)


async def test_sums_go_beyond_what_one_value_can_be(clickhouse: OwnDatabase) -> None:
    most = make_full_record(status="success", cost=Decimal("999999999.999999999"))
    rows = tuple(structs.replace(most, id=make_record().id) for _ in range(20))

    async with clickhouse.opened() as sink:
        await sink.write(Batch.of(rows))
        (total,) = await sink.summarise_usage(SummaryQuery())

    assert total.prompt_tokens == 20 * (2**63 - 1)
    assert total.cost == Decimal("19999999999.999999980")


async def test_a_group_or_filter_that_is_no_column_is_an_error_of_the_caller(clickhouse: OwnDatabase) -> None:
    async with clickhouse.opened() as sink:
        with pytest.raises(ValueError, match="cost"):
            await sink.read_usage(UsageQuery(filters=(("cost = 1 OR cost", "1"),)))
        with pytest.raises(ValueError, match="tags"):
            await sink.summarise_usage(SummaryQuery(group_by=("tags",)))


# --- rows


def scattered_rows(count: int) -> tuple[UsageRecord, ...]:
    """Rows of several users, models and days, some without numbers, some absorbed."""
    rng = Random(SEED)
    return tuple(
        make_record(
            timestamp=datetime(2026, 1, 30, tzinfo=UTC) + timedelta(minutes=rng.randrange(60 * 24 * 4)),
            user_id=rng.choice([None, "u1", "u2", ""]),
            model=rng.choice([None, "a", "b"]),
            provider=rng.choice(["openai", "local"]),
            status=rng.choice(["success", "success", "error", "absorbed", "rejected"]),
            prompt_tokens=rng.choice([None, 0, 5, 2**62]),
            cached_tokens=rng.choice([None, 3]),
            cost=rng.choice([None, Decimal("0.000000001"), Decimal("123456789.123456789")]),
            latency_ms=rng.choice([None, 0.0, rng.random() * 1000, 5.5]),
        )
        for _ in range(count)
    )


def matching(rows: Sequence[UsageRecord], filters: Sequence[tuple[str, str]]) -> list[UsageRecord]:
    return [row for row in rows if all(getattr(row, name) == value for name, value in filters)]
