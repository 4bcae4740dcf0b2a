"""The read side: the right rows, newest first, each on exactly one page.

For a sink that declares no read side, every case asserts that it has none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from ...record import Batch, UsageRecord
from ...sink import LogSink, UsageReader
from ...usage_query import FILTER_COLUMNS, Cursor, UsageQuery
from ..records import MOMENT, make_full_record, make_record, make_records
from .base import SinkCases, bounded, read_all, reader_of

SECOND = timedelta(seconds=1)


class ReadCases(SinkCases):
    async def test_a_new_database_has_no_rows(self) -> None:
        async with self._reading() as (_, reader):
            if reader:
                assert await read_all(reader) == []

    async def test_rows_are_read_as_they_were_written(self) -> None:
        row = make_full_record()

        async with self._reading(row) as (_, reader):
            if reader:
                (found,) = await read_all(reader)
                self.check_equal(found, row)

    async def test_a_row_can_be_read_as_soon_as_its_write_returned(self) -> None:
        async with self._reading() as (sink, reader):
            for row in make_records(3):
                await bounded(sink.write(Batch.of((row,))))
                if reader:
                    assert row.id in _ids(await read_all(reader))

    async def test_newest_first_whatever_the_order_of_writing(self) -> None:
        rows = [make_record(timestamp=MOMENT + SECOND * n) for n in (3, 0, 4, 1, 2)]

        async with self._reading(*rows) as (_, reader):
            if reader:
                assert _ids(await read_all(reader)) == _newest_first(rows)

    async def test_rows_of_one_moment_are_ordered_by_id(self) -> None:
        rows = [make_record(timestamp=MOMENT) for _ in range(20)]

        async with self._reading(*rows) as (_, reader):
            if reader:
                assert _ids(await read_all(reader, page_rows=3)) == _newest_first(rows)

    async def test_every_row_is_on_one_page_whatever_the_size_of_a_page(self) -> None:
        rows = [make_record(timestamp=MOMENT + SECOND * (n // 3)) for n in range(12)]

        async with self._reading(*rows) as (_, reader):
            for page_rows in (1, 2, 3, 5, 11, 12, 13) if reader else ():
                assert reader and _ids(await read_all(reader, page_rows)) == _newest_first(rows)

    async def test_the_last_page_has_no_cursor(self) -> None:
        async with self._reading(*make_records(4)) as (_, reader):
            for limit in (4, 5) if reader else ():
                assert reader and (await bounded(reader.read_usage(UsageQuery(limit=limit)))).cursor is None

    async def test_a_cursor_survives_its_way_through_a_url(self) -> None:
        rows = make_records(4)

        async with self._reading(*rows) as (_, reader):
            if reader:
                first = await bounded(reader.read_usage(UsageQuery(limit=2)))
                assert first.cursor
                after = Cursor.decode(first.cursor.encode())
                second = await bounded(reader.read_usage(UsageQuery(limit=2, after=after)))
                assert _ids(first.rows + second.rows) == _newest_first(rows)

    async def test_pages_stay_apart_while_rows_are_added(self) -> None:
        rows = make_records(6)
        newer = [make_record(timestamp=MOMENT + SECOND * n) for n in (1, 2, 3)]

        async with self._reading(*rows) as (sink, reader):
            if reader:
                first = await bounded(reader.read_usage(UsageQuery(limit=3)))
                await bounded(sink.write(Batch.of(tuple(newer))))
                second = await bounded(reader.read_usage(UsageQuery(limit=10, after=first.cursor)))
                assert _ids(first.rows + second.rows) == _newest_first(rows)

    async def test_start_is_within_and_end_is_not(self) -> None:
        rows = [make_record(timestamp=MOMENT + SECOND * n) for n in range(5)]
        start, end = rows[1].timestamp, rows[3].timestamp

        async with self._reading(*rows) as (_, reader):
            if reader:
                assert _ids(await read_all(reader, start=start, end=end)) == [rows[2].id, rows[1].id]
                assert _ids(await read_all(reader, start=start)) == _newest_first(rows[1:])
                assert _ids(await read_all(reader, end=end)) == _newest_first(rows[:3])

    async def test_each_filter_finds_its_rows_alone(self) -> None:
        for column in FILTER_COLUMNS:
            await self._check_filter(column)

    async def _check_filter(self, column: str) -> None:
        mark = f"only-{column}"
        wanted = [make_record(**{column: mark, "timestamp": MOMENT + SECOND * n}) for n in range(4)]
        others = [make_record(**{column: value}) for value in ("other", mark.upper(), f"{mark} ", "")]

        async with self._reading(*wanted, *others) as (_, reader):
            if reader:
                found = await read_all(reader, page_rows=3, filters=((column, mark),))
                assert _ids(found) == _newest_first(wanted), column

    async def test_filters_and_times_hold_together(self) -> None:
        wanted = make_record(user_id="u", model="m", timestamp=MOMENT)
        others = [
            make_record(user_id="u", model="m", timestamp=MOMENT + SECOND),
            make_record(user_id="u", model="other", timestamp=MOMENT),
            make_record(user_id="other", model="m", timestamp=MOMENT),
        ]
        both = (("user_id", "u"), ("model", "m"))

        async with self._reading(wanted, *others) as (_, reader):
            if reader:
                assert _ids(await read_all(reader, filters=both, end=MOMENT + SECOND)) == [wanted.id]

    async def test_a_filter_is_a_value_and_never_a_command(self) -> None:
        row = make_record(user_id="o'hara")

        async with self._reading(row) as (_, reader):
            if reader:
                assert _ids(await read_all(reader, filters=(("user_id", "o'hara"),))) == [row.id]
                for text in ("' OR '1'='1", "%", "_'hara", "$ne", '{"$ne": null}', "o'hara\\"):
                    assert await read_all(reader, filters=(("user_id", text),)) == []

    @asynccontextmanager
    async def _reading(self, *rows: UsageRecord) -> AsyncIterator[tuple[LogSink, UsageReader | None]]:
        """The sink with ``rows`` in it, and its read side if it has one."""
        async with self.open() as sink:
            if rows:
                await bounded(sink.write(Batch.of(rows)))
            yield sink, reader_of(sink)


def _ids(rows: Any) -> list[Any]:
    return [row.id for row in rows]


def _newest_first(rows: Any) -> list[Any]:
    return _ids(sorted(rows, key=lambda row: (row.timestamp, row.id), reverse=True))
