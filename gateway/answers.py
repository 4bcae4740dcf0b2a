"""How an answer to a call is made once its outcome is known: errors, promises, the last word of a stream."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from backends import NotDurable

from .calls import Call, Ending
from .errors import INTERNAL_MESSAGE, error_body, error_type
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


def provider_ending(error: ProviderError) -> Ending:
    """How a call ended that its provider failed."""
    return Ending(
        status="error",
        end_reason=error.end_reason,
        status_code=error.status,
        error_code=error.code,
        error_message=error.message,
    )


def provider_body(error: ProviderError) -> dict[str, Any]:
    """What the client gets to read of a provider's failure."""
    return error_body(error.message, error_type(error.status), error.code)


def provider_answer(error: ProviderError) -> web.Response:
    """The answer to a call that its provider failed."""
    return web.json_response(provider_body(error), status=error.status, headers=error.headers)


async def promised(call: Call, answer: web.Response) -> web.Response:
    """``answer`` with the promise on its head, once the row is as durable as promised; else a 503 without."""
    try:
        await call.durable()
    except NotDurable:
        return web.json_response(NOT_DURABLE, status=503)
    if call.usage_id is not None:
        answer.headers[USAGE_ID] = str(call.usage_id)
    return answer


def error_event(body: dict[str, Any]) -> bytes:
    """An error as the last event of a stream."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"
