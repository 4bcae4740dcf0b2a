"""The API's own description, and a page to read and try it. Both are the same for everybody."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from aiohttp import web

from ..keys import OPENAPI


class _Page(NamedTuple):
    text: str
    policy: str
    """What the page may do: run what stands in it and ask this gateway, nothing else."""


async def openapi(request: web.Request) -> web.Response:
    """``GET /openapi.json``."""
    return web.Response(text=request.app[OPENAPI](), content_type="application/json")


async def docs(request: web.Request) -> web.Response:
    """``GET /docs``."""
    page = _page()
    headers = {"Content-Security-Policy": page.policy}
    return web.Response(text=page.text, content_type="text/html", charset="utf-8", headers=headers)


@cache
def _page() -> _Page:
    text = files("gateway").joinpath("openapi", "docs.html").read_text("utf-8")
    script, style = _hash(text, "script"), _hash(text, "style")
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
        "img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return _Page(text, policy)


def _hash(page: str, element: str) -> str:
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
