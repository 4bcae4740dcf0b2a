"""The inference endpoints: check, route, begin, then one call with exactly one row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from ..access import require_model
from ..answers import INTERNAL_ERROR, SHUTTING_DOWN, cancelled_ending, is_stop, promised, provider_answer
from ..calls import Call
from ..departure import has_left
from ..endings import BUG, CLIENT_LEFT, COMPLETE, provider_ending, rejected_ending
from ..errors import GatewayError, InternalError, UnsupportedMediaType
from ..inference_request import InferenceRequest, parse_chat, parse_embeddings
from ..keys import ACCESS, CALLS, PRINCIPAL, PROVIDERS, PUMPS
from ..middlewares import HAS_ROW, error_response
from ..providers.base import Provider
from ..providers.errors import ProviderError
from ..routing import resolve
from ..streaming import Relay
from .beginning import begin

log = logging.getLogger("gateway.calls")


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
    spender = await request.app[ACCESS].spender(request[PRINCIPAL], asked.user)
    require_model(request[PRINCIPAL], route)
    body = asked.upstream_body(route.model)
    request.app[CALLS].track()
    call, refusal = await begin(request, asked, route, spender)
    # From here on there is exactly one row: nothing that can fail stands between the place and the try.
    request[HAS_ROW] = True  # the call's own end counts it in the metrics, with or without a place
    try:
        if refusal is not None:
            return await _refused(request, call, refusal)
        return await _answer(request, call, asked, providers[route.provider], body)
    except asyncio.CancelledError:
        has_answer = call.is_finished
        call.finish(cancelled_ending(request))
        if has_answer or not is_stop(request):
            raise
        return await promised(request, call, web.json_response(SHUTTING_DOWN, status=503))
    finally:
        if not call.is_handed_over:
            call.finish(BUG)


async def _refused(request: web.Request, call: Call, refusal: GatewayError) -> web.StreamResponse:
    ending = rejected_ending(refusal)
    call.finish(ending.unheard() if has_left(request) else ending)
    return await promised(request, call, error_response(refusal))


async def _answer(
    request: web.Request, call: Call, asked: InferenceRequest, provider: Provider, body: bytes
) -> web.StreamResponse:
    """The answer to ``call``, good or bad; leaves it finished, or with the pumps."""
    try:
        if asked.stream:
            return await Relay(request, call, request.app[PUMPS], asked.shows_usage).run(provider, body)
        return await _plain_answer(request, call, provider, body)
    except ProviderError as error:
        call.finish(CLIENT_LEFT if has_left(request) else provider_ending(error))
        return await promised(request, call, provider_answer(error))
    except Exception as error:
        log.exception("call_failed", extra={"request_id": call.facts.request_id})
        call.finish(BUG)
        if call.status_sent:  # a second head cannot be sent: the stream is cut
            raise InternalError from error
        return await promised(request, call, web.json_response(INTERNAL_ERROR, status=500))


async def _plain_answer(request: web.Request, call: Call, provider: Provider, body: bytes) -> web.Response:
    with call.waiting():
        answer = await provider.send(call.facts.endpoint, body, call.facts.request_id)
    call.see_answer(answer)
    call.finish(CLIENT_LEFT if has_left(request) else replace(COMPLETE, status_code=answer.status))
    response = web.Response(body=answer.body, status=answer.status, content_type="application/json")
    return await promised(request, call, response)
