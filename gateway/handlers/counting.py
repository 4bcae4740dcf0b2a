"""``POST /v1/messages/count_tokens``: asks the provider, and is no call: no row, no budget, no rate limit."""

from __future__ import annotations

from aiohttp import web

from ..access import require_model
from ..answers import provider_problem
from ..endpoints import keep_to_endpoint
from ..formats import COUNT_TOKENS
from ..keys import CALLS, PRINCIPAL, PROVIDERS, REQUEST_ID, ROUTER
from ..providers.errors import ProviderError
from .beginning import draining_if_stopped


async def count_tokens(request: web.Request) -> web.StreamResponse:
    """As the provider counts."""
    COUNT_TOKENS.check_type(request.content_type)
    asked = COUNT_TOKENS.parse(await request.read(), request.headers)
    providers = request.app[PROVIDERS]
    plan = request.app[ROUTER].plan(asked.model)
    require_model(request[PRINCIPAL], plan.destination)
    keep_to_endpoint(plan, providers, request.path)
    route = plan.routes[0]
    provider = providers[route.provider]
    request.app[CALLS].track()
    with draining_if_stopped(request):
        try:
            answer = await provider.send(request.path, asked.upstream_body(route.model), request[REQUEST_ID])
        except ProviderError as error:
            raise provider_problem(error) from error
    headers = {"Content-Type": answer.content_type}
    return web.Response(body=answer.body, status=answer.status, headers=headers)
