"""The inference endpoints: check, route, begin, then one call with exactly one row."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler

from backends import User

from ..access import Access, Principal, require_model
from ..answers import INTERNAL_ERROR, SHUTTING_DOWN, cancelled_ending, is_stop, promised, provider_problem
from ..attempting import Attempts, Payloads
from ..calls import Call
from ..departure import has_left
from ..endings import BUG, CLIENT_LEFT, completed, provider_ending, rejected_ending
from ..endpoints import keep_to_endpoint
from ..errors import GatewayError, InternalError, NotFound
from ..formats import Format
from ..inference_request import InferenceRequest
from ..keys import ACCESS, CALLS, PRINCIPAL, PROVIDERS, PUMPS, ROUTER, SETTINGS
from ..middlewares import HAS_ROW, error_response
from ..providers.errors import ProviderError
from ..streaming import Relay
from .beginning import begin

log = logging.getLogger("gateway.calls")


def calls_in(format: Format) -> Handler:
    """The handler of the endpoint that speaks ``format``."""
    return partial(_infer, format=format)


async def _infer(request: web.Request, format: Format) -> web.StreamResponse:
    app, principal = request.app, request[PRINCIPAL]
    format.check_type(request.content_type)
    asked = format.parse(await request.read(), request.headers)
    plan = app[ROUTER].plan(asked.model)
    spender = await _spender(app[ACCESS], principal, asked)
    require_model(principal, plan.destination)
    keep_to_endpoint(plan, app[PROVIDERS], request.path)
    payloads = Payloads(asked.upstream_body)
    payloads.of(plan.route.model)  # what cannot be sent on is refused before the call begins
    app[CALLS].track()
    call, refusal = await begin(request, asked, plan, spender)
    # From here on there is exactly one row: nothing that can fail stands between the place and the try.
    request[HAS_ROW] = True  # the call's own end counts it in the metrics, with or without a place
    try:
        if refusal is not None:
            return await _refused(request, call, refusal)
        return await _answer(request, call, asked, format, Attempts(request, call, plan, payloads))
    except asyncio.CancelledError:
        has_answer = call.is_finished
        call.finish(cancelled_ending(request))
        if has_answer or not is_stop(request):
            raise
        return await promised(request, call, error_response(request, SHUTTING_DOWN))
    finally:
        if not call.is_handed_over:
            call.finish(BUG)


async def _spender(access: Access, principal: Principal, asked: InferenceRequest) -> User | None:
    """Who pays. A name that may be anything binds nobody: it counts if the master key has a user of it."""
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
    attempts: Attempts,
) -> web.StreamResponse:
    """The answer to ``call``, good or bad; leaves it finished, or with the pumps."""
    try:
        if asked.is_relayed:
            streams = request.app[SETTINGS].streams
            relay = Relay(request, call, request.app[PUMPS], format, streams, asked.shows_usage)
            return await relay.run(attempts)
        return await _plain_answer(request, call, attempts)
    except ProviderError as error:
        call.finish(CLIENT_LEFT if has_left(request) else provider_ending(error))
        return await promised(request, call, error_response(request, provider_problem(error)))
    except Exception as error:
        log.exception("call_failed", extra={"request_id": call.facts.request_id})
        call.finish(BUG)
        if call.status_sent:  # a second head cannot be sent: the stream is cut
            raise InternalError from error
        return await promised(request, call, error_response(request, INTERNAL_ERROR))


async def _plain_answer(request: web.Request, call: Call, attempts: Attempts) -> web.Response:
    answer = await attempts.send()
    call.see_answer(answer)
    call.finish(CLIENT_LEFT if has_left(request) else completed(answer.status))
    headers = {"Content-Type": answer.content_type}
    response = web.Response(body=answer.body, status=answer.status, headers=headers)
    return await promised(request, call, response)
