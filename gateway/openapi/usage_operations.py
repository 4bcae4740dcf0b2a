"""The part of the table that tells of calls that were made, and of the gateway itself."""

from __future__ import annotations

from typing import get_args

from backends import FILTER_COLUMNS, GROUP_COLUMNS, GROUP_TIMES, MAX_PAGE_ROWS, Status

from ..handlers import documentation, operations, usage
from ..usage_parameters import ROW_FORMATS, SUMMARY_FORMATS
from .operation import JSON, Answer, Operation, Parameter, json_answer, reference
from .schemas import TEXT, closed

_ALWAYS = (400, 401, 403, 501, 503)
_TIME = "With its zone, as 2026-01-31T23:59:59Z; UTC if it has none. "
_PERIOD = (
    Parameter("start", TEXT, f"{_TIME}From then on."),
    Parameter("end", TEXT, f"{_TIME}Before then."),
)
_ANY_VALUE = {"type": "string", "minLength": 1, "maxLength": 256}
_FILTERS = tuple(
    Parameter(
        name,
        {"type": "string", "enum": list(get_args(Status))} if name == "status" else _ANY_VALUE,
        f"Only rows with this {name}.",
    )
    for name in FILTER_COLUMNS
)
_GROUPS = {"type": "array", "items": {"type": "string", "enum": [*GROUP_COLUMNS, *GROUP_TIMES]}}


def _format(names: tuple[str, ...]) -> Parameter:
    return Parameter("format", {"type": "string", "enum": list(names), "default": names[0]})


USAGE = (
    Operation(
        method="GET",
        path="/v1/usage",
        handler=usage.list_usage,
        id="list_usage",
        tag="Usage",
        summary="Rows, the newest first: one page as JSON, or all as CSV or JSON lines",
        parameters=(
            *_PERIOD,
            *_FILTERS,
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1},
                f"As JSON at most {MAX_PAGE_ROWS}, and 100 unless told otherwise.",
            ),
            Parameter("cursor", TEXT, "The cursor of the page before."),
            _format(ROW_FORMATS),
        ),
        answers={
            "200": Answer(
                "Rows.",
                {JSON: reference("UsagePage"), "text/csv": TEXT, "application/jsonl": TEXT},
            )
        },
        errors=_ALWAYS,
        needs="master",
    ),
    Operation(
        method="GET",
        path="/v1/usage/summary",
        handler=usage.summarise_usage,
        id="summarise_usage",
        tag="Usage",
        summary="Calls, tokens, cost, errors and latencies, by group",
        parameters=(
            *_PERIOD,
            *_FILTERS,
            Parameter("group_by", _GROUPS, "May be repeated."),
            _format(SUMMARY_FORMATS),
        ),
        answers={"200": Answer("Sums.", {JSON: reference("UsageSummary"), "text/csv": TEXT})},
        errors=_ALWAYS,
        needs="master",
    ),
    Operation(
        method="GET",
        path="/v1/log-writer",
        handler=operations.log_writer,
        id="get_log_writer",
        tag="Usage",
        summary="The live ledger: where every accepted row is",
        answers={"200": json_answer("The ledger.", reference("LogWriter"))},
        errors=(401, 403, 503),
        needs="master",
    ),
)
_HEALTHY = {"200": json_answer("It does.", closed({"status": {"const": "ok"}}))}
OPERATIONS = (
    Operation(
        method="GET",
        path="/health",
        handler=operations.health,
        id="get_health",
        tag="Operations",
        summary="Whether the process answers",
        answers=_HEALTHY,
    ),
    Operation(
        method="GET",
        path="/health/liveness",
        handler=operations.health,
        id="get_liveness",
        tag="Operations",
        summary="Whether the process answers",
        answers=_HEALTHY,
    ),
    Operation(
        method="GET",
        path="/health/readiness",
        handler=operations.readiness,
        id="get_readiness",
        tag="Operations",
        summary="Whether the next call would be served, and what is wrong behind",
        answers={
            "200": json_answer("It would.", reference("Ready")),
            "503": json_answer("It would not.", reference("NotReady")),
        },
    ),
    Operation(
        method="GET",
        path="/metrics",
        handler=operations.metrics,
        id="get_metrics",
        tag="Operations",
        summary="For Prometheus, of all workers together",
        answers={"200": Answer("Metrics.", {"text/plain": TEXT})},
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        handler=documentation.openapi,
        id="get_openapi",
        tag="Operations",
        summary="This description",
        answers={"200": json_answer("OpenAPI 3.1.", {"type": "object"})},
    ),
    Operation(
        method="GET",
        path="/docs",
        handler=documentation.docs,
        id="get_docs",
        tag="Operations",
        summary="A page to read this description, and to try it",
        answers={"200": Answer("The page.", {"text/html": TEXT})},
    ),
)
