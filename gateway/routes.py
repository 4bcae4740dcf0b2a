"""The URL table: every operation that the API describes, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from aiohttp import web

from .keys import OPENAPI
from .openapi.document import document
from .openapi.table import TABLE


def add_routes(app: web.Application) -> None:
    """Give ``app`` every endpoint that it has."""
    for each in TABLE:
        if each.method == "GET":
            app.router.add_get(each.path, each.handler)  # which answers HEAD, too
        else:
            app.router.add_route(each.method, each.path, each.handler)
    describe: Callable[[], str] = _description
    app[OPENAPI] = describe


@cache
def _description() -> str:
    return json.dumps(document(TABLE, _version()), ensure_ascii=False)


def _version() -> str:
    try:
        return version("tallygate")
    except PackageNotFoundError:
        return "0"
