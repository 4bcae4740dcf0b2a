"""What browsers are told on every response: not to guess, not to keep, not to frame; and whose pages may ask.

Nobody else's may, unless their origin is configured. Cookies are never asked for: the key is a header, which
a page has to know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

SECURITY: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
ANY: Final = "*"
METHODS: Final = "GET, HEAD, POST, PATCH, DELETE"
REQUEST_HEADERS: Final = (
    "authorization",
    "content-type",
    "x-api-key",
    "x-request-id",
    "anthropic-version",
    "anthropic-beta",
)
SHOWN: Final = ", ".join(
    (
        "request-id",
        "retry-after",
        "x-request-id",
        "x-usage-id",
        *(
            f"x-ratelimit-{what}-{unit}"
            for what in ("limit", "remaining", "reset")
            for unit in ("requests", "tokens")
        ),
    )
)
PREFLIGHT_HOLDS_S: Final = 600
_HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}")


def secure(headers: MutableMapping[str, str], path: str) -> None:
    """Set what a handler at ``path`` has not set itself."""
    for name, value in SECURITY.items():
        headers.setdefault(name, value)
    if path.startswith("/v1/"):
        headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
        headers.setdefault(hdrs.VARY, hdrs.AUTHORIZATION)


class Cors:
    """Whose pages may call: those of ``origins``, or of all if one of them is ``*``."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)

    async def mark_response(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Let the page that asked read the answer, errors included."""
        if ANY not in self._origins:
            vary = response.headers.get(hdrs.VARY)
            response.headers[hdrs.VARY] = f"{vary}, {hdrs.ORIGIN}" if vary else hdrs.ORIGIN
        if (allowed := self._allowed(request)) is not None:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = allowed
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = SHOWN

    @web.middleware
    async def answer_preflight(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A browser asks, without a key, whether it may send what comes next."""
        is_preflight = (
            request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        )
        if not is_preflight or self._allowed(request) is None:
            return await handler(request)
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _request_headers(request),
                hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_HOLDS_S),
            },
        )

    def _allowed(self, request: web.BaseRequest) -> str | None:
        if ANY in self._origins:
            return ANY
        origin = request.headers.get(hdrs.ORIGIN)
        return origin if origin in self._origins else None


def _request_headers(request: web.Request) -> str:
    """Ours, and whatever else is asked for: clients for browsers send names of their own with each call."""
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "").lower().split(",")
    names = [name for each in asked if _HEADER_NAME.fullmatch(name := each.strip())]
    return ", ".join(dict.fromkeys((*REQUEST_HEADERS, *names)))
