"""The inference endpoints: check, route, begin, then one call with exactly one row."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Handler

from backends import User

from ..access import require_model
from ..answers import INTERNAL_ERROR, SHUTTING_DOWN, cancelled_ending, is_stop, promised, provider_problem
from ..calls import Call
from ..departure import has_left
from ..endings import BUG, CLIENT_LEFT, COMPLETE, provider_ending, rejected_ending
from ..endpoints import require_endpoint
from ..errors import GatewayError, InternalError, NotFound
from ..formats import Format
from ..inference_request import InferenceRequest
from ..keys import ACCESS, CALLS, PRINCIPAL, PROVIDERS, PUMPS, SETTINGS
from ..middlewares import HAS_ROW, error_response
from ..providers.base import Payload, Provider
from ..providers.errors import ProviderError
from ..routing import resolve
from ..streaming import Relay
from .beginning import begin

log = logging.getLogger("gateway.calls")


def calls_in(format: Format) -> Handler:
    """The handler of the endpoint that speaks ``format``."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _infer(request, format)

    return handle


async def _infer(request: web.Request, format: Format) -> web.StreamResponse:
    format.check_type(request.content_type)
    asked = format.parse(await request.read(), request.headers)
    providers = request.app[PROVIDERS]
    route = resolve(asked.model, providers)
    spender = await _spender(request, asked)
    require_model(request[PRINCIPAL], route)
    require_endpoint(providers[route.provider], request.path)
    payload = asked.upstream_body(route.model)
    request.app[CALLS].track()
    call, refusal = await begin(request, asked, route, spender)
    # From here on there is exactly one row: nothing that can fail stands between the place and the try.
    request[HAS_ROW] = True  # the call's own end counts it in the metrics, with or without a place
    try:
        if refusal is not None:
            return await _refused(request, call, refusal)
        return await _answer(request, call, asked, format, providers[route.provider], payload)
    except asyncio.CancelledError:
        has_answer = call.is_finished
        call.finish(cancelled_ending(request))
        if has_answer or not is_stop(request):
            raise
        return await promised(request, call, error_response(request, SHUTTING_DOWN))
    finally:
        if not call.is_handed_over:
            call.finish(BUG)


async def _spender(request: web.Request, asked: InferenceRequest) -> User | None:
    """Who pays. A name that may be anything binds nobody: it counts if the master key has a user of it."""
    access, principal = request.app[ACCESS], request[PRINCIPAL]
    if not asked.is_user_opaque:
        return await access.spender(principal, asked.user)
    try:
        return await access.spender(principal, None if principal.user else asked.user)
    except NotFound:
        return None


async def _refused(request: web.Request, call: Call, refusal: GatewayError) -> web.StreamResponse:
    ending = rejected_ending(refusal)
    call.finish(ending.unheard() if has_left(request) else ending)
    return await promised(request, call, error_response(request, refusal))


async def _answer(
    request: web.Request,
    call: Call,
    asked: InferenceRequest,
    format: Format,
    provider: Provider,
    payload: Payload,
) -> web.StreamResponse:
    """The answer to ``call``, good or bad; leaves it finished, or with the pumps."""
    try:
        if asked.is_relayed:
            streams = request.app[SETTINGS].streams
            relay = Relay(request, call, request.app[PUMPS], format, streams, asked.shows_usage)
            return await relay.run(provider, payload)
        return await _plain_answer(request, call, provider, payload)
    except ProviderError as error:
        call.finish(CLIENT_LEFT if has_left(request) else provider_ending(error))
        return await promised(request, call, error_response(request, provider_problem(error)))
    except Exception as error:
        log.exception("call_failed", extra={"request_id": call.facts.request_id})
        call.finish(BUG)
        if call.status_sent:  # a second head cannot be sent: the stream is cut
            raise InternalError from error
        return await promised(request, call, error_response(request, INTERNAL_ERROR))


async def _plain_answer(
    request: web.Request, call: Call, provider: Provider, payload: Payload
) -> web.Response:
    with call.waiting():
        answer = await provider.send(call.facts.endpoint, payload, call.facts.request_id)
    call.see_answer(answer)
    call.finish(CLIENT_LEFT if has_left(request) else replace(COMPLETE, status_code=answer.status))
    headers = {"Content-Type": answer.content_type}
    response = web.Response(body=answer.body, status=answer.status, headers=headers)
    return await promised(request, call, response)
