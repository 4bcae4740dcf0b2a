"""The parameters of ``GET /v1/usage`` as a question to the sink. Pure; every refusal names its parameter."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import get_args

from backends import FILTER_COLUMNS, MAX_PAGE_ROWS, Cursor, Status, UsageQuery

from .errors import BadRequest

KNOWN = ("start", "end", *FILTER_COLUMNS, "cursor", "limit", "format")
MAX_VALUE = 256
"""Characters that a text column of the row holds: nothing longer can match."""


def parse_query(parameters: Mapping[str, str], repeated: frozenset[str] = frozenset()) -> UsageQuery:
    """The question that ``parameters`` ask; ``repeated`` are the names that came more than once.

    Raises ``BadRequest`` with code ``unknown_parameter``, ``invalid_parameter`` or ``invalid_format``.
    """
    _check_names(parameters, repeated)
    if parameters.get("format", "json") != "json":
        raise BadRequest("The format is json.", "invalid_format", "format")
    query = UsageQuery(
        start=_moment(parameters, "start"),
        end=_moment(parameters, "end"),
        filters=tuple((name, _value(parameters, name)) for name in FILTER_COLUMNS if name in parameters),
        after=_cursor(parameters),
        limit=_limit(parameters),
    )
    if query.start and query.end and query.end < query.start:
        raise _invalid("end", "It lies before start.")
    return query


def _check_names(parameters: Mapping[str, str], repeated: frozenset[str]) -> None:
    for name in parameters:
        if name not in KNOWN:
            message = f"There is no such parameter. There are: {', '.join(KNOWN)}."
            raise BadRequest(message, "unknown_parameter", name[:MAX_VALUE])
        if name in repeated:
            raise _invalid(name, "It may be given once.")


def _moment(parameters: Mapping[str, str], name: str) -> datetime | None:
    if name not in parameters:
        return None
    try:
        moment = datetime.fromisoformat(parameters[name])
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        hint = "Send a time as 2026-01-31T23:59:59Z; a + of an offset has to be sent as %2B."
        raise _invalid(name, hint) from None


def _value(parameters: Mapping[str, str], name: str) -> str:
    value = parameters[name]
    if not value or len(value) > MAX_VALUE or not _is_storable(value):
        raise _invalid(name, f"It has 1 to {MAX_VALUE} characters, as a row can hold them.")
    if name == "status" and value not in get_args(Status):
        raise _invalid(name, f"It is one of: {', '.join(get_args(Status))}.")
    return value


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _cursor(parameters: Mapping[str, str]) -> Cursor | None:
    if "cursor" not in parameters:
        return None
    try:
        cursor = Cursor.decode(parameters["cursor"])
        return Cursor(cursor.timestamp.astimezone(UTC), cursor.id)
    except (ValueError, OverflowError):
        raise _invalid("cursor", "Send the cursor of the page before, unchanged.") from None


def _limit(parameters: Mapping[str, str]) -> int:
    if "limit" not in parameters:
        return UsageQuery().limit
    text = parameters["limit"]
    # Not all that int() reads is meant as a number: signs, blanks, underscores, digits of other scripts.
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= MAX_PAGE_ROWS:
        raise _invalid("limit", f"It is a number from 1 to {MAX_PAGE_ROWS}.")
    return limit


def _invalid(name: str, why: str) -> BadRequest:
    return BadRequest(f"The parameter {name} is not valid. {why}", "invalid_parameter", name)
