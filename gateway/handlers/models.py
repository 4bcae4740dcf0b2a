"""The models that a caller may name: those with a price and a configured provider that its key opens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from ..errors import NotFound
from ..keys import PRICES, PRINCIPAL, SETTINGS
from ..routing import resolve


async def list_models(request: web.Request) -> web.Response:
    """``GET /v1/models``."""
    return web.json_response({"object": "list", "data": [_model(name) for name in _names(request)]})


async def get_model(request: web.Request) -> web.Response:
    """``GET /v1/models/{id}``; the id is a name as a call may have it, ``provider/model`` too."""
    name = resolve(request.match_info["id"], request.app[SETTINGS].providers).price_key
    if name not in _names(request):
        raise NotFound(
            "This model has no price here, or this key may not use it.", "model_not_found", "model"
        )
    return web.json_response(_model(name))


def _names(request: web.Request) -> list[str]:
    providers = request.app[SETTINGS].providers
    priced = request.app[PRICES].models(datetime.now(UTC))
    return [
        name
        for name in priced
        if name.partition(":")[0] in providers and request[PRINCIPAL].may_use(resolve(name, providers))
    ]


def _model(name: str) -> dict[str, Any]:
    # The gateway does not know when a model was made; OpenAI's clients want a number.
    return {"id": name, "object": "model", "created": 0, "owned_by": name.partition(":")[0]}
