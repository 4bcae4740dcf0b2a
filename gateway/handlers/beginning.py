"""The beginning of a call: its rate limits, its money and its place, in this order.

Whatever a call took is given back if it does not begin; from its place on its end settles everything.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType

from aiohttp import web

from backends import LogWriter, Place, User

from ..access import Admission, bounds_of
from ..answers import is_stop
from ..calls import Call, Facts
from ..errors import GatewayError, PaymentRequired, ServiceUnavailable
from ..inference_request import InferenceRequest
from ..keys import (
    ADMISSION,
    BUDGETS,
    CALLS,
    LIFECYCLE,
    LIMITS,
    METRICS,
    PRICES,
    PRINCIPAL,
    REQUEST_ID,
    SETTINGS,
    WRITER,
)
from ..money import Hold, Order
from ..pricing import Price, foreseen
from ..routing import Plan, Route, Target

DRAINING = "The gateway is being stopped."
REFUSALS = {
    "queue_full": "The usage log has no room for this call's row. Try again shortly.",
    "sink_down": "The usage log's database does not answer. Try again shortly.",
}


async def begin(
    request: web.Request, asked: InferenceRequest, plan: Plan, spender: User | None
) -> tuple[Call, GatewayError | None]:
    """The call, with its place, and why it may not be made if it may not: such a call has a row, too. Where
    it goes first is chosen then. Raises ``GatewayError`` and ``StoreUnavailable`` for a call that does not
    begin at all."""
    admission = _limit(request, asked, spender)
    try:
        with DrainingIfStopped(request):
            return await _begin(request, asked, plan, spender, admission)
    except BaseException:
        admission.settle(0)
        raise


async def _begin(
    request: web.Request, asked: InferenceRequest, plan: Plan, spender: User | None, admission: Admission
) -> tuple[Call, GatewayError | None]:
    app = request.app
    if app[LIFECYCLE].is_closed_to_calls:
        raise ServiceUnavailable(DRAINING, code="draining")
    prices = app[PRICES]
    if not prices.is_ready:
        await prices.ready()
    call = _prepare(request, asked, plan, spender)
    if admission.is_counted:
        call.on_finish.append(admission.hear)
    hold = await _hold(app, call, asked, plan, spender)
    if hold.is_open:
        call.on_finish.append(lambda row: hold.settle(call.spent(row)))
    try:
        call.place = await _take_place(app[WRITER], call)
    except BaseException:
        hold.settle(None)
        raise
    return call, hold.refusal


class DrainingIfStopped:
    """Inside, the stop is a refusal. Raises ``ServiceUnavailable``. Every call passes here, and a class costs
    it a third of what a generator does."""

    def __init__(self, request: web.Request) -> None:
        self._request = request

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, asyncio.CancelledError) and is_stop(self._request):
            raise ServiceUnavailable(DRAINING, code="draining") from None


def _limit(request: web.Request, asked: InferenceRequest, spender: User | None) -> Admission:
    """Count the call against the rate limits of its key and its user. Raises ``RateLimited``."""
    app = request.app
    tokens = asked.most_tokens(app[SETTINGS].budgets.default_output_tokens)
    admission = app[LIMITS].admit(bounds_of(request[PRINCIPAL].key, spender), tokens)
    request[ADMISSION] = admission
    return admission


def _prepare(request: web.Request, asked: InferenceRequest, plan: Plan, spender: User | None) -> Call:
    app, began_at = request.app, datetime.now(UTC)
    route = _choose(app, asked, plan, began_at)
    facts = Facts(
        request_id=request[REQUEST_ID],
        endpoint=request.path,
        route=route,
        stream=asked.stream,
        price=app[PRICES].price_at(route.price_key, began_at),
        prompt_tokens=asked.prompt_tokens,
        api_key_id=request[PRINCIPAL].api_key_id,
        user_id=spender.id if spender else None,
        tags=asked.tags,
    )
    return app[CALLS].begin(Call(facts, None, app[METRICS], app[SETTINGS].estimate_cost, began_at=began_at))


def _choose(app: web.Application, asked: InferenceRequest, plan: Plan, began_at: datetime) -> Route:
    """Where the call goes first, of the places where it may go."""
    prices = app[PRICES]

    def is_served(route: Route) -> bool:
        is_priced = prices.price_at(route.price_key, began_at) is not None
        return is_priced or app[SETTINGS].unpriced == "serve"

    def cost(target: Target) -> Decimal | None:
        price = prices.price_at(target.key, began_at)
        return None if price is None else _expected(app, asked, price)

    plan.keep(is_served)
    return plan.choose(cost, stream=asked.is_relayed)


def _expected(app: web.Application, asked: InferenceRequest, price: Price) -> Decimal:
    """USD that the call is expected to cost at ``price``."""
    default = app[SETTINGS].budgets.default_output_tokens
    wanted = default if asked.output_tokens is None else asked.output_tokens
    return foreseen(price, asked.prompt_tokens, wanted * asked.choices, asked.images)


def _dearest(app: web.Application, asked: InferenceRequest, plan: Plan, began_at: datetime) -> Price | None:
    """The price of the dearest place where the call may go, for its money is held before anybody knows."""
    prices = [app[PRICES].price_at(route.price_key, began_at) for route in plan.routes]
    known = [price for price in prices if price is not None]
    if len(known) < 2:
        return known[0] if known else None
    return max(known, key=lambda price: _expected(app, asked, price))


async def _hold(
    app: web.Application, call: Call, asked: InferenceRequest, plan: Plan, spender: User | None
) -> Hold:
    if call.facts.price is None and app[SETTINGS].unpriced == "refuse":
        return Hold(
            PaymentRequired("This model has no price, so it is not served.", "model_not_priced", "model")
        )
    budgets = app[BUDGETS]
    if not budgets.bind(spender):
        return Hold()
    order = Order(
        row_id=call.row_id,
        made_at=call.began_at,
        spender=spender,
        price=_dearest(app, asked, plan, call.began_at),
        prompt_tokens=asked.prompt_tokens,
        output_tokens=asked.output_tokens,
        choices=asked.choices,
        images=asked.images,
    )
    return await budgets.hold(order)


async def _take_place(writer: LogWriter, call: Call) -> Place | None:
    place = await writer.reserve(row_id=call.row_id, intent=call.intent)
    if isinstance(place, Place):
        return place
    if place.is_call_served:
        return None
    message = REFUSALS.get(place.reason, "The gateway takes no calls now.")
    raise ServiceUnavailable(message, code=f"usage_log_{place.reason}", headers={"Retry-After": "1"})
