"""The inference endpoints: check, route, admit, then one call with exactly one row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from backends import Place

from ..answers import INTERNAL_ERROR, SHUTTING_DOWN, promised, provider_answer, provider_ending
from ..calls import BUG, CLIENT_LEFT, COMPLETE, SHUTDOWN, Call, Facts
from ..errors import ServiceUnavailable, UnsupportedMediaType
from ..inference_request import InferenceRequest, parse_chat, parse_embeddings
from ..keys import (
    CALLS,
    LIFECYCLE,
    METRICS,
    PRICES,
    PRINCIPAL,
    PROVIDERS,
    PUMPS,
    REQUEST_ID,
    SETTINGS,
    WRITER,
)
from ..middlewares import HAS_ROW
from ..providers.base import Provider
from ..providers.errors import ProviderError
from ..routing import Route, resolve
from ..streaming import Relay

log = logging.getLogger("gateway.calls")

REFUSALS = {
    "queue_full": "The usage log has no room for this call's row. Try again shortly.",
    "sink_down": "The usage log's database does not answer. Try again shortly.",
}


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """``POST /v1/chat/completions``."""
    return await _infer(request, parse_chat)


async def embeddings(request: web.Request) -> web.StreamResponse:
    """``POST /v1/embeddings``."""
    return await _infer(request, parse_embeddings)


async def _infer(request: web.Request, parse: Callable[[bytes], InferenceRequest]) -> web.StreamResponse:
    if request.content_type != "application/json":
        raise UnsupportedMediaType("The body is JSON: send content-type: application/json.")
    asked = parse(await request.read())
    providers = request.app[PROVIDERS]
    route = resolve(asked.model, providers)
    with request.app[CALLS].track():
        place = await _admit(request)
        # From here on there is exactly one row: nothing that can fail stands between the place and the try.
        call = _begin(request, asked, route, place)
        try:
            return await _answer(request, call, asked, providers[route.provider])
        except ProviderError as error:
            call.finish(provider_ending(error))
            return await promised(call, provider_answer(error))
        except asyncio.CancelledError:
            call.finish(SHUTDOWN)
            return _cancelled(request, call)
        except Exception:
            log.exception("call_failed", extra={"request_id": call.facts.request_id})
            call.finish(BUG)
            return await promised(call, web.json_response(INTERNAL_ERROR, status=500))
        finally:
            call.finish(BUG)


async def _admit(request: web.Request) -> Place | None:
    if request.app[LIFECYCLE].is_closed_to_calls:
        raise ServiceUnavailable("The gateway is being stopped.", code="draining")
    place = await request.app[WRITER].reserve()
    if isinstance(place, Place):
        return place
    if place.is_call_served:
        return None
    message = REFUSALS.get(place.reason, "The gateway takes no calls now.")
    raise ServiceUnavailable(message, code=f"usage_log_{place.reason}", headers={"Retry-After": "1"})


def _begin(request: web.Request, asked: InferenceRequest, route: Route, place: Place | None) -> Call:
    request[HAS_ROW] = True  # the call's own end counts it in the metrics, with or without a place
    principal = request[PRINCIPAL]
    facts = Facts(
        request_id=request[REQUEST_ID],
        endpoint=request.path,
        route=route,
        stream=asked.stream,
        price=request.app[PRICES].lookup(route.price_key),
        api_key_id=principal.api_key_id,
        user_id=principal.user_id,
        tags=asked.tags,
    )
    return Call(facts, place, request.app[METRICS], request.app[SETTINGS].estimate_cost)


async def _answer(
    request: web.Request, call: Call, asked: InferenceRequest, provider: Provider
) -> web.StreamResponse:
    body = asked.upstream_body(call.facts.route.model)
    if asked.stream:
        relay = Relay(request, call, request.app[PUMPS], asked.shows_usage)
        return await relay.run(provider, body)
    with call.waiting():
        answer = await provider.send(call.facts.endpoint, body, call.facts.request_id)
    call.usage, call.is_whole = answer.usage, True
    call.finish(CLIENT_LEFT if _has_left(request) else replace(COMPLETE, status_code=answer.status))
    response = web.Response(body=answer.body, status=answer.status, content_type="application/json")
    return await promised(call, response)


def _has_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _cancelled(request: web.Request, call: Call) -> web.StreamResponse:
    """Say that the gateway stops, if it was the stop that ended this call and nothing has been sent yet."""
    task = asyncio.current_task()
    if task is None or call.status_sent or not request.app[CALLS].is_ending:
        raise asyncio.CancelledError
    task.uncancel()
    return web.json_response(SHUTTING_DOWN, status=503)
