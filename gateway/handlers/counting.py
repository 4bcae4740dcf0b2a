"""``POST /v1/messages/count_tokens``, which is no call: no row, no budget, no rate limit.

The provider counts, if it has such an endpoint; else the gateway estimates what it would translate.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from ..access import require_model
from ..answers import provider_problem
from ..endpoints import keep_to_endpoint
from ..estimate import body_tokens
from ..formats import COUNT_TOKENS, MESSAGES_PATH
from ..inference_request import InferenceRequest
from ..keys import CALLS, PRINCIPAL, PROVIDERS, REQUEST_ID, ROUTER
from ..providers.base import Provider
from ..providers.errors import ProviderError
from ..routing import Plan
from .beginning import DrainingIfStopped

ESTIMATED = ("system", "messages", "tools")


async def count_tokens(request: web.Request) -> web.StreamResponse:
    """As the provider counts, or as many as the gateway would guess."""
    COUNT_TOKENS.check_type(request.content_type)
    asked = COUNT_TOKENS.parse(await request.read(), request.headers)
    providers = request.app[PROVIDERS]
    plan = request.app[ROUTER].plan(asked.model)
    require_model(request[PRINCIPAL], plan.destination)
    if not any(providers[route.provider].offers(request.path) for route in plan.routes):
        return _estimated(plan, providers, asked)
    keep_to_endpoint(plan, providers, request.path)
    route = plan.routes[0]
    provider = providers[route.provider]
    request.app[CALLS].track()
    with DrainingIfStopped(request):
        try:
            answer = await provider.send(request.path, asked.upstream_body(route.model), request[REQUEST_ID])
        except ProviderError as error:
            raise provider_problem(error) from error
    headers = {"Content-Type": answer.content_type}
    return web.Response(body=answer.body, status=answer.status, headers=headers)


def _estimated(plan: Plan, providers: Mapping[str, Provider], asked: InferenceRequest) -> web.Response:
    keep_to_endpoint(plan, providers, MESSAGES_PATH)
    return web.json_response({"input_tokens": body_tokens(asked.body.members, ESTIMATED)})
