"""The stored rows, newest first."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from backends import SinkError, UsagePage, UsageQuery, UsageReader, to_json

from ..auth import require_master
from ..errors import NotOffered, ServiceUnavailable
from ..keys import PRINCIPAL, REQUEST_ID, SINK
from ..usage_parameters import parse_query

log = logging.getLogger("gateway.usage")

READ_TIMEOUT_S = 10.0


async def list_usage(request: web.Request) -> web.Response:
    """``GET /v1/usage``: one page."""
    require_master(request[PRINCIPAL])
    repeated = frozenset(name for name in request.query if len(request.query.getall(name)) > 1)
    query = parse_query(request.query, repeated)
    page = await _read(request, _reader(request), query)
    return web.json_response(
        {
            "data": [to_json(row) for row in page.rows],
            "cursor": page.cursor.encode() if page.cursor else None,
            "has_more": page.cursor is not None,
        }
    )


def _reader(request: web.Request) -> UsageReader:
    sink = request.app[SINK]
    if sink is None or not sink.capabilities.reads_usage or not isinstance(sink, UsageReader):
        raise NotOffered("Rows cannot be read back from where this gateway keeps them.", "usage_not_stored")
    return sink


async def _read(request: web.Request, reader: UsageReader, query: UsageQuery) -> UsagePage:
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await reader.read_usage(query)
    except (SinkError, TimeoutError) as error:
        code = error.code if isinstance(error, SinkError) else "timeout"
        log.warning("usage_unavailable", extra={"code": code, "request_id": request[REQUEST_ID]})
        raise ServiceUnavailable(
            "The database of the usage rows does not answer. Try again shortly.", "usage_unavailable"
        ) from error
