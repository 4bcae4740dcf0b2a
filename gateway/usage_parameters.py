"""What is asked about usage, by the names of the HTTP API, as a question to the sink.

Takes texts by name, from a URL or a command line; gives checked questions. Pure; every refusal names its
parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import get_args

from backends import (
    FILTER_COLUMNS,
    GROUP_COLUMNS,
    GROUP_TIMES,
    MAX_PAGE_ROWS,
    Cursor,
    Status,
    SummaryQuery,
    UsageQuery,
)

from .errors import BadRequest
from .query_parameters import check_names, invalid_parameter, parse_limit, parse_text

ROWS_KNOWN = ("start", "end", *FILTER_COLUMNS, "cursor", "limit", "format")
SUMMARY_KNOWN = ("start", "end", *FILTER_COLUMNS, "group_by", "format")
ROW_FORMATS = ("json", "csv", "jsonl")
SUMMARY_FORMATS = ("json", "csv")
MAX_EXPORT_ROWS = 10**9


@dataclass(frozen=True, slots=True)
class RowsRequest:
    """``query`` is the first page. As ``json`` it is the whole answer; in the other formats the pages behind
    it follow, up to ``max_rows`` in all, None for all that there are."""

    query: UsageQuery
    format: str
    max_rows: int | None = None


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """``query`` in the ``format`` that was asked for."""

    query: SummaryQuery
    format: str


def parse_rows(parameters: Mapping[str, str], repeated: frozenset[str] = frozenset()) -> RowsRequest:
    """What ``parameters`` ask of ``/v1/usage``; ``repeated`` are the names that came more than once.

    Raises ``BadRequest`` with code ``unknown_parameter``, ``invalid_parameter`` or ``invalid_format``.
    """
    check_names(parameters, repeated, ROWS_KNOWN)
    format = _format(parameters, ROW_FORMATS)
    start, end = _period(parameters)
    limit = parse_limit(parameters, MAX_PAGE_ROWS if format == "json" else MAX_EXPORT_ROWS)
    query = UsageQuery(start=start, end=end, filters=_filters(parameters), after=_cursor(parameters))
    if format != "json":
        return RowsRequest(query, format, limit)
    return RowsRequest(replace(query, limit=limit or query.limit), format)


def parse_summary(
    parameters: Mapping[str, str], group_by: Sequence[str] = (), repeated: frozenset[str] = frozenset()
) -> SummaryRequest:
    """What ``parameters`` ask of ``/v1/usage/summary``. ``group_by`` holds its values as they came, each one
    or more names with commas between. Raises as ``parse_rows`` does."""
    check_names(parameters, repeated - {"group_by"}, SUMMARY_KNOWN)
    format = _format(parameters, SUMMARY_FORMATS)
    start, end = _period(parameters)
    query = SummaryQuery(start=start, end=end, filters=_filters(parameters), group_by=_groups(group_by))
    return SummaryRequest(query, format)


def _format(parameters: Mapping[str, str], formats: tuple[str, ...]) -> str:
    format = parameters.get("format", formats[0])
    if format not in formats:
        raise BadRequest(f"The format is one of: {', '.join(formats)}.", "invalid_format", "format")
    return format


def _period(parameters: Mapping[str, str]) -> tuple[datetime | None, datetime | None]:
    start, end = _moment(parameters, "start"), _moment(parameters, "end")
    if start and end and end < start:
        raise invalid_parameter("end", "It lies before start.")
    return start, end


def _filters(parameters: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _value(parameters, name)) for name in FILTER_COLUMNS if name in parameters)


def _groups(values: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for value in values for name in value.split(","))
    for name in names:
        if name not in (*GROUP_COLUMNS, *GROUP_TIMES):
            raise invalid_parameter("group_by", f"It is any of: {', '.join((*GROUP_COLUMNS, *GROUP_TIMES))}.")
    if len(set(names)) < len(names):
        raise invalid_parameter("group_by", "It names each group once.")
    return names


def _moment(parameters: Mapping[str, str], name: str) -> datetime | None:
    if name not in parameters:
        return None
    try:
        moment = datetime.fromisoformat(parameters[name])
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        hint = "Send a time as 2026-01-31T23:59:59Z; in a URL the + of an offset has to be sent as %2B."
        raise invalid_parameter(name, hint) from None


def _value(parameters: Mapping[str, str], name: str) -> str:
    value = parse_text(parameters, name)
    if name == "status" and value not in get_args(Status):
        raise invalid_parameter(name, f"It is one of: {', '.join(get_args(Status))}.")
    return value


def _cursor(parameters: Mapping[str, str]) -> Cursor | None:
    if "cursor" not in parameters:
        return None
    try:
        cursor = Cursor.decode(parameters["cursor"])
        return Cursor(cursor.timestamp.astimezone(UTC), cursor.id)
    except (ValueError, OverflowError):
        raise invalid_parameter("cursor", "Send the cursor of the page before, unchanged.") from None
