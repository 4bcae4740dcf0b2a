"""How an answer to a call is made once its outcome is known: errors, promises, the last word of a stream."""

from __future__ import annotations

import asyncio

from aiohttp import web

from backends import NotDurable

from .calls import Call
from .departure import has_left
from .endings import CLIENT_LEFT, SHUTDOWN, Ending
from .errors import GatewayError, InternalError, ServiceUnavailable, error_type
from .keys import CALLS
from .middlewares import error_response
from .providers.errors import ProviderError

USAGE_ID = "x-usage-id"

NOT_DURABLE = ServiceUnavailable(
    "The usage row of this call could not be stored, so its answer is withheld. Try again later.",
    "usage_not_durable",
)
SHUTTING_DOWN = ServiceUnavailable(
    "The gateway is being stopped. Try again; another instance may answer.", "shutting_down"
)
INTERNAL_ERROR = InternalError()


def cancelled_ending(request: web.Request) -> Ending:
    """How a call ended whose handler was cancelled: by the stop, or by a server that cancels the handlers of
    clients that left, which the gateway's own does not."""
    if not has_left(request):
        return SHUTDOWN
    return SHUTDOWN.unheard() if request.app[CALLS].is_ending else CLIENT_LEFT


def provider_problem(error: ProviderError) -> GatewayError:
    """What the client gets to read of a provider's failure."""
    return GatewayError(
        error.message, error.code, status=error.status, type=error_type(error.status), headers=error.headers
    )


async def promised(request: web.Request, call: Call, answer: web.Response) -> web.Response:
    """``answer`` with the promise on its head, once the row is as durable as promised; else a 503 without."""
    try:
        await _durable(request, call)
    except NotDurable:
        return error_response(request, NOT_DURABLE)
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
