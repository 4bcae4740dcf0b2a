"""``/v1/keys``: the keys that open the gateway. A secret is answered where it is made, and nowhere else."""

from __future__ import annotations

from aiohttp import web

from backends import ApiKey

from ..keys import ACCESS
from .answers import KeyAnswer, NewKeyAnswer
from .bodies import read_body
from .entrance import Handlers, answer, enter, path_id
from .issuing import change_key, create_key, find_key, revoke_key, rotate_key
from .paging import PAGING, parse_page, read_page
from .requests import KeyChange, KeyCreate, KeyRotate

FILTERS = ("user_id",)


async def create(request: web.Request) -> web.Response:
    """``POST /v1/keys``."""
    store = enter(request)
    key, secret = await create_key(store, await read_body(request, KeyCreate))
    return answer(NewKeyAnswer.with_secret(key, secret), 201)


async def listing(request: web.Request) -> web.Response:
    """``GET /v1/keys``."""
    store = enter(request, *PAGING, *FILTERS)
    return answer(await read_page(store, ApiKey, parse_page(request.query, ApiKey, FILTERS), KeyAnswer.of))


async def one(request: web.Request) -> web.Response:
    """``GET /v1/keys/{id}``."""
    return answer(KeyAnswer.of(await find_key(enter(request), path_id(request))))


async def change(request: web.Request) -> web.Response:
    """``PATCH /v1/keys/{id}``."""
    store = enter(request)
    key = await change_key(store, path_id(request), await read_body(request, KeyChange))
    request.app[ACCESS].forget_key(key.id)
    return answer(KeyAnswer.of(key))


async def revoke(request: web.Request) -> web.Response:
    """``DELETE /v1/keys/{id}``."""
    key = await revoke_key(enter(request), path_id(request))
    request.app[ACCESS].forget_key(key.id)
    return web.Response(status=204)


async def rotate(request: web.Request) -> web.Response:
    """``POST /v1/keys/{id}/rotate``."""
    store = enter(request)
    asked = await read_body(request, KeyRotate, is_optional=True)
    key, secret = await rotate_key(store, path_id(request), asked)
    request.app[ACCESS].forget_key(key.id)
    return answer(NewKeyAnswer.with_secret(key, secret))


HANDLERS: Handlers = {"create": create, "list": listing, "get": one, "change": change, "delete": revoke}
