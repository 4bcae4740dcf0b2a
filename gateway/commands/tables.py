"""Rows and sums as a table for people. No caller's text moves the cursor of the terminal that shows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from backends import KeptLetter, SummaryRow, UsageRecord, to_json

from ..usage_text import summary_columns, summary_json

ROW_COLUMNS = (
    "timestamp",
    "status",
    "user_id",
    "provider",
    "model",
    "total_tokens",
    "cost",
    "latency_ms",
    "request_id",
)
"""What fits a line; the other formats have every column."""
LETTER_COLUMNS = ("at", "row_id", "sink", "code", "attempts", "is_marked", "message")
_NUMBERS = {"cost", "calls", "errors", "attempts", "rows", "intents", "batches", "damaged", "bytes", "count"}
_NUMBERS |= {"spent_usd", "rows_usd"}
_NUMBERS_END = ("_tokens", "_ms")


def rows_table(rows: Iterable[UsageRecord], *, has_head: bool) -> str:
    """Lines of ``rows``, after the names of their columns if ``has_head``."""
    plain = map(to_json, rows)
    return table(ROW_COLUMNS, ([row[name] for name in ROW_COLUMNS] for row in plain), has_head=has_head)


def summary_table(groups: Sequence[SummaryRow], group_by: Sequence[str]) -> str:
    """A line for each group, after the names of the columns."""
    lines = summary_json(groups, group_by)["data"]
    return table(summary_columns(group_by), (line.values() for line in lines), has_head=True)


def letters_table(letters: Iterable[KeptLetter], *, has_head: bool) -> str:
    """Lines of ``letters``, after the names of their columns if ``has_head``."""
    plain = (letter.to_json() for letter in letters)
    return table(
        LETTER_COLUMNS, ([each[name] for name in LETTER_COLUMNS] for each in plain), has_head=has_head
    )


def table(names: Sequence[str], lines: Iterable[Iterable[Any]], *, has_head: bool) -> str:
    """``lines`` in columns as wide as they need; numbers, by the name of their column, to the right."""
    head = [list(names)] if has_head else []
    cells = [*head, *([_cell(value) for value in line] for line in lines)]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    return "".join(f"{_line(names, widths, line)}\n" for line in cells)


def _line(names: Sequence[str], widths: Sequence[int], line: Sequence[str]) -> str:
    cells = (
        cell.rjust(width) if _is_number(name) else cell.ljust(width)
        for name, width, cell in zip(names, widths, line, strict=True)
    )
    return "  ".join(cells).rstrip()


def _is_number(name: str) -> bool:
    return name in _NUMBERS or name.endswith(_NUMBERS_END)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
