"""``tallygate logs``: here ``list`` and ``summary``, the HTTP API's answers, read from the sink itself.

Works beside a running gateway and without one. The filters are the API's, as options. Changes nothing, the
schema included.
"""

from __future__ import annotations

import argparse
from contextlib import aclosing
from typing import TYPE_CHECKING

from backends import FILTER_COLUMNS, GROUP_COLUMNS, GROUP_TIMES, LogSink, UsageReader

from ..errors import BadRequest
from ..settings import Settings
from ..usage_parameters import RowsRequest, SummaryRequest, parse_rows, parse_summary
from ..usage_text import all_pages, page_json, rows_head, rows_text, summary_csv, summary_json
from . import audit, dead_letters, replay, spool
from .output import show, show_json, until_nobody_reads
from .sink import Refused, Use, refuse, with_sink
from .tables import rows_table, summary_table

if TYPE_CHECKING:
    from . import Commands

TABLE_ROWS = 100
"""Rows of a table unless ``--limit`` says otherwise."""


# --- arguments


def add_to(commands: Commands) -> list[argparse.ArgumentParser]:
    """The parsers, added."""
    parser = commands.add_parser("logs", help="read the stored rows, and find those that are not")
    kinds = parser.add_subparsers(dest="logs", required=True)
    listing = kinds.add_parser("list", help="rows, newest first")
    listing.set_defaults(run=list_rows)
    _add_options(listing, "table", "json", "csv", "jsonl")
    listing.add_argument("--limit", help=f"rows at most (default: {TABLE_ROWS}; csv and jsonl: all)")
    listing.add_argument("--cursor", help="go on behind the page that json gave this cursor with")
    adding = kinds.add_parser("summary", help="calls, tokens, cost and latencies, by group")
    adding.set_defaults(run=summarise)
    _add_options(adding, "table", "json", "csv")
    groups = f"any of: {', '.join((*GROUP_COLUMNS, *GROUP_TIMES))}"
    adding.add_argument("--group-by", action="append", default=[], metavar="NAME[,NAME]", help=groups)
    ours = [listing, adding, *audit.add_to(kinds), *spool.add_to(kinds)]
    return [*ours, dead_letters.add_to(kinds), replay.add_to(kinds)]


def _add_options(parser: argparse.ArgumentParser, *formats: str) -> None:
    parser.add_argument("--start", metavar="TIME", help="from then on, as 2026-01-31T23:59:59Z")
    parser.add_argument("--end", metavar="TIME", help="before then")
    for column in FILTER_COLUMNS:
        parser.add_argument(_option(column), help=f"only rows with this {column}")
    parser.add_argument("--format", choices=formats, default=formats[0])


def _parameters(arguments: argparse.Namespace) -> dict[str, str]:
    """What was given, by the names of the API."""
    names = ("start", "end", *FILTER_COLUMNS, "limit", "cursor")
    given = {name: getattr(arguments, name, None) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def _option(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


def _told(error: BadRequest) -> str:
    return f"{_option(error.param or '')}: {error.message}"


# --- commands


def list_rows(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print rows; the exit status."""
    parameters = _parameters(arguments)
    if arguments.format == "table":
        parameters = {"limit": str(TABLE_ROWS), **parameters, "format": "csv"}
    else:
        parameters["format"] = arguments.format
    try:
        asked = parse_rows(parameters)
    except BadRequest as error:
        return refuse(_told(error))
    return _reading(settings, lambda sink: _print_rows(_reader(sink), asked, arguments.format))


def summarise(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print a summary; the exit status."""
    try:
        asked = parse_summary(_parameters(arguments), arguments.group_by)
    except BadRequest as error:
        return refuse(_told(error))
    return _reading(settings, lambda sink: _print_summary(_reader(sink), asked, arguments.format))


def _reading(settings: Settings, use: Use) -> int:
    return until_nobody_reads(lambda: with_sink(settings, use, migrates=False))


def _reader(sink: LogSink) -> UsageReader:
    if not sink.capabilities.reads_usage or not isinstance(sink, UsageReader):
        raise Refused("rows cannot be read back from there")
    return sink


async def _print_rows(reader: UsageReader, asked: RowsRequest, format: str) -> None:
    if format == "json":
        show_json(page_json(await reader.read_usage(asked.query)))
        return
    is_table, is_first = format == "table", True
    async with aclosing(all_pages(reader.read_usage, asked.query, asked.max_rows)) as pages:
        async for rows in pages:
            head = "" if is_table or not is_first else rows_head(format)
            show(rows_table(rows, has_head=is_first) if is_table else head + rows_text(rows, format))
            is_first = False


async def _print_summary(reader: UsageReader, asked: SummaryRequest, format: str) -> None:
    groups, group_by = await reader.summarise_usage(asked.query), asked.query.group_by
    if format == "json":
        show_json(summary_json(groups, group_by))
    else:
        show((summary_table if format == "table" else summary_csv)(groups, group_by))
