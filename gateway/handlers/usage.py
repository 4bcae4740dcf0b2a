"""The stored rows, newest first, and what they add up to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from aiohttp import web

from backends import SinkError, UsagePage, UsageQuery, UsageReader

from ..access import require_master
from ..errors import NotOffered, ServiceUnavailable
from ..keys import PRINCIPAL, REQUEST_ID, SINK
from ..usage_parameters import RowsRequest, parse_rows, parse_summary
from ..usage_text import (
    CONTENT_TYPES,
    all_pages,
    page_json,
    rows_head,
    rows_text,
    summary_csv,
    summary_json,
)

log = logging.getLogger("gateway.usage")

READ_TIMEOUT_S = 10.0
SUMMARY_TIMEOUT_S = 30.0
"""A summary looks at every row of its time."""

T = TypeVar("T")


async def list_usage(request: web.Request) -> web.StreamResponse:
    """``GET /v1/usage``: one page as JSON, or every row as CSV or JSON lines."""
    require_master(request[PRINCIPAL])
    asked = parse_rows(request.query, _repeated(request))
    reader = _reader(request)
    if asked.format == "json":
        return web.json_response(page_json(await _page(request, reader, asked.query)))
    return await _export(request, reader, asked)


async def summarise_usage(request: web.Request) -> web.Response:
    """``GET /v1/usage/summary``: calls, tokens, cost and latencies by group."""
    require_master(request[PRINCIPAL])
    asked = parse_summary(request.query, request.query.getall("group_by", []), _repeated(request))
    summarising = _reader(request).summarise_usage(asked.query)
    groups = await _answered(request, summarising, SUMMARY_TIMEOUT_S)
    if asked.format == "json":
        return web.json_response(summary_json(groups, asked.query.group_by))
    text = summary_csv(groups, asked.query.group_by)
    return web.Response(
        text=text, headers=_named("usage-summary.csv"), content_type="text/csv", charset="utf-8"
    )


async def _export(request: web.Request, reader: UsageReader, asked: RowsRequest) -> web.StreamResponse:
    """Pages are read only as fast as the client takes them. The first one comes before the head, so that a
    database that is down is still an error; one that fails later cuts the answer short."""
    async with aclosing(all_pages(partial(_page, request, reader), asked.query, asked.max_rows)) as pages:
        text = rows_head(asked.format) + rows_text(await anext(pages), asked.format)
        response = web.StreamResponse(headers=_named(f"usage.{asked.format}"))
        response.content_type, response.charset = CONTENT_TYPES[asked.format], "utf-8"
        await response.prepare(request)
        if request.method != "HEAD":
            await response.write(text.encode())
            async for rows in pages:
                await response.write(rows_text(rows, asked.format).encode())
    await response.write_eof()
    return response


def _named(file: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{file}"'}


def _repeated(request: web.Request) -> frozenset[str]:
    return frozenset(name for name in request.query if len(request.query.getall(name)) > 1)


def _reader(request: web.Request) -> UsageReader:
    sink = request.app[SINK]
    if sink is None or not sink.capabilities.reads_usage or not isinstance(sink, UsageReader):
        raise NotOffered("Rows cannot be read back from where this gateway keeps them.", "usage_not_stored")
    return sink


async def _page(request: web.Request, reader: UsageReader, query: UsageQuery) -> UsagePage:
    return await _answered(request, reader.read_usage(query), READ_TIMEOUT_S)


async def _answered(request: web.Request, call: Awaitable[T], timeout_s: float) -> T:
    try:
        async with asyncio.timeout(timeout_s):
            return await call
    except (SinkError, TimeoutError) as error:
        code = error.code if isinstance(error, SinkError) else "timeout"
        log.warning("usage_unavailable", extra={"code": code, "request_id": request[REQUEST_ID]})
        raise ServiceUnavailable(
            "The database of the usage rows does not answer. Try again shortly.", "usage_unavailable"
        ) from error
