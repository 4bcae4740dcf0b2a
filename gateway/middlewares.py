"""What happens to every request, whatever its route: it is named, its errors become JSON, its key is checked.

Takes a request; gives a response with ``x-request-id``. Never shows a traceback to a client, and never
writes a header or a body to the log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler
from uuid_utils import uuid7

from backends import StoreUnavailable

from .errors import BadRequest, GatewayError, InternalError, StoreDown, error_type
from .formats import ANTHROPIC_PATHS, format_at
from .keys import ACCESS, ADMISSION, METRICS, PRINCIPAL, REQUEST_ID
from .metrics import OTHER
from .response_headers import Cors, secure

log = logging.getLogger("gateway.http")

REQUEST_ID_HEADER = "x-request-id"
ANTHROPICS_REQUEST_ID_HEADER = "request-id"
"""Where Anthropic's clients look for it; beside the other, at its endpoints."""
CLIENT_CLOSED_REQUEST = 499

HAS_ROW: web.RequestKey[bool] = web.RequestKey("has_row", bool)
"""True once a call began: its own end counts it, so an error that arrives here later is no refusal."""

_STARTED: web.RequestKey[web.StreamResponse | None] = web.RequestKey("started", web.StreamResponse)
"""Set while a request is attended to: the response whose head is out, if any. Not longer: a response whose
client left leads back to its request, a cycle with the whole body in it."""
_VISIBLE_ASCII = re.compile(r"[!-~]{1,128}")
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


def add_middlewares(app: web.Application, cors_origins: Sequence[str] = ()) -> None:
    """Give ``app`` everything from here, in the order that it needs. Call once, before the app starts."""
    app.on_response_prepare.append(mark_response)
    if cors_origins:
        cors = Cors(cors_origins)
        app.on_response_prepare.append(cors.mark_response)
        app.middlewares.append(cors.answer_preflight)
    app.middlewares.append(attend)


# --- the name of a request


def request_id(request: web.BaseRequest) -> str:
    """The id of ``request``: the one sent if it is 1 to 128 visible ASCII characters, else a new one."""
    try:
        return request[REQUEST_ID]
    except KeyError:
        sent = request.headers.get(REQUEST_ID_HEADER, "")
        named = request[REQUEST_ID] = sent if _VISIBLE_ASCII.fullmatch(sent) else uuid7().hex
        return named


async def mark_response(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Name the request on the head of every response, streams and the router's own errors included, and say
    how its rate limits stand and what a browser may do."""
    headers = response.headers
    headers[REQUEST_ID_HEADER] = request_id(request)
    if request.path in ANTHROPIC_PATHS:
        headers[ANTHROPICS_REQUEST_ID_HEADER] = request_id(request)
    if (admission := request.get(ADMISSION)) is not None and admission.is_counted:
        headers.update(admission.headers())
    secure(headers, request.path)
    if _STARTED in request:
        request[_STARTED] = response


# --- keys and errors


@web.middleware
async def attend(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Set ``request[REQUEST_ID]``, and under ``/v1/`` ``request[PRINCIPAL]``; the rest needs no key. Turn
    whatever ``handler`` raises into an error in the path's shape; count it, unless the call has been
    counted. One middleware, since each costs every call some microseconds."""
    request_id(request)
    request[_STARTED] = None
    try:
        if request.path.startswith("/v1/") or endpoint_of(request).startswith("/v1/"):
            request[PRINCIPAL] = await request.app[ACCESS].identify(request.headers)
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _answer(request, _from_http(error))
    except Exception as error:
        if _has_left(request, error):
            return _to_nobody(request)
        return _answer(request, _known(request, error) or _bug(request))
    finally:
        del request[_STARTED]


def _answer(request: web.Request, problem: GatewayError) -> web.StreamResponse:
    if (started := request[_STARTED]) is not None:
        return _cut(request, started, problem)
    return _refuse(request, problem.status, error_response(request, problem))


def error_response(request: web.Request, error: GatewayError) -> web.Response:
    """``error`` as a response, in the shape that the clients of this path know."""
    body = format_at(request.path).error(error)
    return web.json_response(body, status=error.status, headers=error.headers)


def endpoint_of(request: web.Request) -> str:
    """The template of the route that ``request`` found, never its raw path."""
    resource = request.match_info.route.resource
    return OTHER if resource is None else resource.canonical


def _has_left(request: web.Request, error: Exception) -> bool:
    # Reading the body of a client that is gone raises the error its connection ended with.
    is_gone = request.transport is None or request.transport.is_closing()
    return is_gone and isinstance(error, (ConnectionError, web.RequestPayloadError))


def _to_nobody(request: web.Request) -> web.StreamResponse:
    if (started := request[_STARTED]) is not None:
        return started
    return _refuse(request, CLIENT_CLOSED_REQUEST, web.Response(status=CLIENT_CLOSED_REQUEST))


def _known(request: web.Request, error: Exception) -> GatewayError | None:
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, StoreUnavailable):
        request.app[ACCESS].health.failed(error)
        return StoreDown()
    if isinstance(error, web.RequestPayloadError):
        return BadRequest("The body does not match its own headers, or is cut short.", "invalid_body")
    return None


def _bug(request: web.Request) -> GatewayError:
    log.exception(
        "internal_error",
        extra={"request_id": request[REQUEST_ID], "method": request.method, "endpoint": endpoint_of(request)},
    )
    return InternalError()


def _from_http(error: web.HTTPException) -> GatewayError:
    code = _CODES.get(error.status) or error.reason.lower().replace(" ", "_")
    return GatewayError(
        _message(error),
        code,
        status=error.status,
        type=error_type(error.status),
        headers=_headers(error),
    )


def _message(error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{error.method} is not allowed here; allowed: {', '.join(sorted(error.allowed_methods))}."
    if error.status == 413:
        return "The body is larger than this gateway takes."
    return "There is nothing at this path." if error.status == 404 else f"{error.reason}."


def _headers(error: web.HTTPException) -> Mapping[str, str]:
    described = ("content-type", "content-length")
    return {name: value for name, value in error.headers.items() if name.lower() not in described}


def _refuse(request: web.Request, status: int, response: web.Response) -> web.Response:
    if not request.get(HAS_ROW, False):
        request.app[METRICS].request_refused(endpoint_of(request), status)
    return response


def _cut(request: web.Request, started: web.StreamResponse, problem: GatewayError) -> web.StreamResponse:
    """The head is out, so no error can be answered: end the connection, that the client sees a cut."""
    log.warning("response_cut", extra={"request_id": request[REQUEST_ID], "code": problem.code})
    if request.transport is not None:
        request.transport.close()
    return started
