"""How an answer to a call is made once its outcome is known: errors, promises, the last word of a stream."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from backends import NotDurable

from .calls import Call
from .departure import has_left
from .endings import CLIENT_LEFT, SHUTDOWN, Ending
from .errors import INTERNAL_MESSAGE, error_body, error_type
from .keys import CALLS
from .providers.errors import ProviderError

USAGE_ID = "x-usage-id"

NOT_DURABLE = error_body(
    "The usage row of this call could not be stored, so its answer is withheld. Try again later.",
    "service_unavailable",
    "usage_not_durable",
)
SHUTTING_DOWN = error_body(
    "The gateway is being stopped. Try again; another instance may answer.",
    "service_unavailable",
    "shutting_down",
)
INTERNAL_ERROR = error_body(INTERNAL_MESSAGE, "api_error", "internal_error")


def cancelled_ending(request: web.Request) -> Ending:
    """How a call ended whose handler was cancelled: by the stop, or by a server that cancels the handlers of
    clients that left, which the gateway's own does not."""
    if not has_left(request):
        return SHUTDOWN
    return SHUTDOWN.unheard() if request.app[CALLS].is_ending else CLIENT_LEFT


def provider_body(error: ProviderError) -> dict[str, Any]:
    """What the client gets to read of a provider's failure."""
    return error_body(error.message, error_type(error.status), error.code)


def provider_answer(error: ProviderError) -> web.Response:
    """The answer to a call that its provider failed."""
    return web.json_response(provider_body(error), status=error.status, headers=error.headers)


async def promised(request: web.Request, call: Call, answer: web.Response) -> web.Response:
    """``answer`` with the promise on its head, once the row is as durable as promised; else a 503 without."""
    try:
        await _durable(request, call)
    except NotDurable:
        return web.json_response(NOT_DURABLE, status=503)
    if call.usage_id is not None:
        answer.headers[USAGE_ID] = str(call.usage_id)
    return answer


def is_stop(request: web.Request) -> bool:
    """Whether it was the stop that cancelled this handler; then the cancel has done its work, and what is
    left is to say so."""
    task = asyncio.current_task()
    if task is None or not request.app[CALLS].is_ending:
        return False
    task.uncancel()
    return True


async def _durable(request: web.Request, call: Call) -> None:
    try:
        await call.durable()
    except asyncio.CancelledError:
        if not is_stop(request):
            raise
        await call.durable()  # the answer is known and its row on the way: only another cancel ends this


def error_event(body: dict[str, Any]) -> bytes:
    """An error as the last event of a stream."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"
