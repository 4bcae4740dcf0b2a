"""The models that a caller may name: those that its key opens, of the configured names and of the providers'
models with a price."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from ..errors import NotFound
from ..keys import PRICES, PRINCIPAL, ROUTER, SETTINGS
from ..routing import Route, resolve

OWNER = "tallygate"
"""Whose a named model is, for clients that ask."""


async def list_models(request: web.Request) -> web.Response:
    """``GET /v1/models``."""
    return web.json_response({"object": "list", "data": [_model(request, name) for name in _names(request)]})


async def get_model(request: web.Request) -> web.Response:
    """``GET /v1/models/{id}``; the id is a name as a call may have it, ``provider/model`` too."""
    destination = request.app[ROUTER].destination(request.match_info["id"])
    name = destination.price_key if isinstance(destination, Route) else destination.name
    if name not in _names(request):
        raise NotFound(
            "This model has no price here, or this key may not use it.", "model_not_found", "model"
        )
    return web.json_response(_model(request, name))


def _names(request: web.Request) -> list[str]:
    providers = request.app[SETTINGS].providers
    named = request.app[ROUTER].models
    priced = request.app[PRICES].models(datetime.now(UTC))
    may_use = request[PRINCIPAL].may_use
    return [
        *(name for name, model in sorted(named.items()) if may_use(model)),
        *(name for name in priced if _provider(name) in providers and may_use(resolve(name, providers))),
    ]


def _model(request: web.Request, name: str) -> dict[str, Any]:
    # The gateway does not know when a model was made; OpenAI's clients want a number.
    owner = OWNER if name in request.app[ROUTER].models else _provider(name)
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _provider(name: str) -> str:
    return name.partition(":")[0]
