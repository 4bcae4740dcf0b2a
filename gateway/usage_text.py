"""Rows and summaries of usage as JSON values, CSV (RFC 4180) and JSON lines; all pages behind one question.

Takes records and groups; gives texts, a page at a time, so that an answer of any length needs the memory of
one page. The cells of CSV are the stored texts, untouched: an unknown value is an empty cell.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeAlias

from backends import SummaryRow, UsagePage, UsageQuery, UsageRecord, to_json

PAGE_ROWS = 500
"""Rows that are in memory at once while many go out."""
CONTENT_TYPES = {"csv": "text/csv", "jsonl": "application/jsonl"}

Read: TypeAlias = Callable[[UsageQuery], Awaitable[UsagePage]]

_ROW_COLUMNS = list(UsageRecord.__struct_fields__)
_SUM_COLUMNS = [field.name for field in fields(SummaryRow) if field.name != "key"]


async def all_pages(
    read: Read, query: UsageQuery, max_rows: int | None
) -> AsyncGenerator[Sequence[UsageRecord]]:
    """The rows from the page ``query`` on, page by page, ``max_rows`` of them at most; at least one page.
    Asks for the next one only when told to go on."""
    left = max_rows
    while True:
        page = await read(replace(query, limit=PAGE_ROWS if left is None else min(left, PAGE_ROWS)))
        yield page.rows
        left = None if left is None else left - len(page.rows)
        if page.cursor is None or left == 0:
            return
        query = replace(query, after=page.cursor)


def page_json(page: UsagePage) -> dict[str, Any]:
    """One page as the API answers it."""
    return {
        "data": [to_json(row) for row in page.rows],
        "cursor": page.cursor.encode() if page.cursor else None,
        "has_more": page.cursor is not None,
    }


def rows_head(format: str) -> str:
    """What stands before the first row."""
    return _csv([_ROW_COLUMNS]) if format == "csv" else ""


def rows_text(rows: Iterable[UsageRecord], format: str) -> str:
    """``rows`` as ``csv`` or ``jsonl``, without a head."""
    plain = map(to_json, rows)
    if format == "csv":
        return _csv(map(_cell, row.values()) for row in plain)
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in plain)


def summary_columns(group_by: Sequence[str]) -> list[str]:
    """The names of a group's values, in their order."""
    return [*group_by, *_SUM_COLUMNS]


def summary_json(groups: Sequence[SummaryRow], group_by: Sequence[str]) -> dict[str, Any]:
    """A summary as the API answers it; money is text, so that no digit is lost."""
    return {
        "data": [dict(zip(summary_columns(group_by), _values(group), strict=True)) for group in groups],
        "group_by": list(group_by),
    }


def summary_csv(groups: Sequence[SummaryRow], group_by: Sequence[str]) -> str:
    """A summary with its head."""
    return _csv([summary_columns(group_by), *(map(_cell, _values(group)) for group in groups)])


def _values(group: SummaryRow) -> list[Any]:
    return [*map(_plain, group.key), *(_plain(getattr(group, name)) for name in _SUM_COLUMNS)]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return f"{value:.9f}" if isinstance(value, Decimal) else value


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool) else value


def _csv(lines: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue()
