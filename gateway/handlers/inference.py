"""The inference endpoints: check, route, admit, then one call with exactly one row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web

from backends import Place, User

from ..access import require_model
from ..answers import INTERNAL_ERROR, SHUTTING_DOWN, cancelled_ending, is_stop, promised, provider_answer
from ..calls import Call, Facts
from ..departure import has_left
from ..endings import BUG, CLIENT_LEFT, COMPLETE, provider_ending, rejected_ending
from ..errors import GatewayError, InternalError, PaymentRequired, ServiceUnavailable, UnsupportedMediaType
from ..inference_request import InferenceRequest, parse_chat, parse_embeddings
from ..keys import (
    ACCESS,
    BUDGETS,
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
from ..middlewares import HAS_ROW, error_response
from ..money import Hold, Order
from ..providers.base import Provider
from ..providers.errors import ProviderError
from ..routing import Route, resolve
from ..streaming import Relay

log = logging.getLogger("gateway.calls")

DRAINING = "The gateway is being stopped."
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
    spender = await request.app[ACCESS].spender(request[PRINCIPAL], asked.user)
    require_model(request[PRINCIPAL], route)
    body = asked.upstream_body(route.model)
    request.app[CALLS].track()
    call, refusal = await _begin(request, asked, route, spender)
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


async def _begin(
    request: web.Request, asked: InferenceRequest, route: Route, spender: User | None
) -> tuple[Call, GatewayError | None]:
    """A call with its place, and why it may not be made, if it may not. First its money is held; who has no
    place then lets go of it."""
    if request.app[LIFECYCLE].is_closed_to_calls:
        raise ServiceUnavailable(DRAINING, code="draining")
    with _draining_if_stopped(request):
        await request.app[PRICES].ready()
        call = _prepare(request, asked, route, spender)
        hold = await _hold(request, call, asked, spender)
        call.on_finish.append(lambda row: hold.settle(row.cost))
        try:
            call.place = await _admit(request, call)
        except BaseException:
            hold.settle(None)
            raise
    return call, hold.refusal


@contextmanager
def _draining_if_stopped(request: web.Request) -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        if not is_stop(request):
            raise
        raise ServiceUnavailable(DRAINING, code="draining") from None


async def _hold(request: web.Request, call: Call, asked: InferenceRequest, spender: User | None) -> Hold:
    if call.facts.price is None and request.app[SETTINGS].unpriced == "refuse":
        return Hold(
            PaymentRequired("This model has no price, so it is not served.", "model_not_priced", "model")
        )
    order = Order(
        row_id=call.row_id,
        made_at=call.began_at,
        spender=spender,
        price=call.facts.price,
        prompt_tokens=asked.prompt_tokens,
        output_tokens=asked.output_tokens,
        choices=asked.choices,
    )
    return await request.app[BUDGETS].hold(order)


async def _admit(request: web.Request, call: Call) -> Place | None:
    place = await request.app[WRITER].reserve(row_id=call.row_id, intent=call.intent)
    if isinstance(place, Place):
        return place
    if place.is_call_served:
        return None
    message = REFUSALS.get(place.reason, "The gateway takes no calls now.")
    raise ServiceUnavailable(message, code=f"usage_log_{place.reason}", headers={"Retry-After": "1"})


async def _refused(request: web.Request, call: Call, refusal: GatewayError) -> web.StreamResponse:
    ending = rejected_ending(refusal)
    call.finish(ending.unheard() if has_left(request) else ending)
    return await promised(request, call, error_response(refusal))


def _prepare(request: web.Request, asked: InferenceRequest, route: Route, spender: User | None) -> Call:
    began_at = datetime.now(UTC)
    facts = Facts(
        request_id=request[REQUEST_ID],
        endpoint=request.path,
        route=route,
        stream=asked.stream,
        price=request.app[PRICES].price_at(route.price_key, began_at),
        prompt_tokens=asked.prompt_tokens,
        api_key_id=request[PRINCIPAL].api_key_id,
        user_id=spender.id if spender else None,
        tags=asked.tags,
    )
    call = Call(facts, None, request.app[METRICS], request.app[SETTINGS].estimate_cost, began_at=began_at)
    return request.app[CALLS].begin(call)


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
