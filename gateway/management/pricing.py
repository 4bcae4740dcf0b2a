"""``/v1/pricing``: what models cost, from when on. A price that is in force is history and is not rewritten:
add one that takes over, or delete it."""

from __future__ import annotations

from contextlib import suppress

from aiohttp import web
from uuid_utils.compat import uuid7

from backends import PriceEntry, Store, StoreUnavailable

from ..errors import Conflict, NotFound
from ..keys import PRICES
from .answers import PriceAnswer
from .bodies import read_body
from .entrance import Handlers, answer, conflicts, enter, path_id
from .issuing import now
from .paging import PAGING, parse_page, read_page
from .requests import PriceChange, PriceCreate

FILTERS = ("model",)


async def create(request: web.Request) -> web.Response:
    """``POST /v1/pricing``."""
    store = enter(request)
    values, moment = dict(await read_body(request, PriceCreate)), now()
    effective_at = values.pop("effective_at") or moment
    price = PriceEntry(id=str(uuid7()), created_at=moment, effective_at=effective_at, **values)
    with conflicts(effective_at=_taken()):
        await store.add(price)
    await _refresh(request)
    return answer(PriceAnswer.of(price), 201)


async def listing(request: web.Request) -> web.Response:
    """``GET /v1/pricing``."""
    store = enter(request, *PAGING, *FILTERS)
    asked = parse_page(request.query, PriceEntry, FILTERS)
    return answer(await read_page(store, PriceEntry, asked, PriceAnswer.of))


async def one(request: web.Request) -> web.Response:
    """``GET /v1/pricing/{id}``."""
    return answer(PriceAnswer.of(await _find(enter(request), path_id(request))))


async def change(request: web.Request) -> web.Response:
    """``PATCH /v1/pricing/{id}``."""
    store = enter(request)
    changes = (await read_body(request, PriceChange)).given()
    price = await _find(store, path_id(request))
    _check_not_in_force(price)
    with conflicts(effective_at=_taken()):
        changed = await store.update(PriceEntry, price.id, changes) if changes else price
    await _refresh(request)
    return answer(PriceAnswer.of(_found(changed)))


async def delete(request: web.Request) -> web.Response:
    """``DELETE /v1/pricing/{id}``."""
    store = enter(request)
    if not await store.remove(PriceEntry, path_id(request)):
        _found(None)
    await _refresh(request)
    return web.Response(status=204)


async def _refresh(request: web.Request) -> None:
    """Have the change in force at once in this process; if that fails, it is a little later."""
    with suppress(StoreUnavailable):
        await request.app[PRICES].refresh()


def _check_not_in_force(price: PriceEntry) -> None:
    if price.effective_at <= now():
        raise Conflict("This price is in force since its time; add one that takes over.", "price_in_force")


async def _find(store: Store, id: str) -> PriceEntry:
    return _found(await store.get(PriceEntry, id))


def _found(price: PriceEntry | None) -> PriceEntry:
    if price is None:
        raise NotFound("There is no price with this id.", "price_not_found")
    return price


def _taken() -> Conflict:
    return Conflict("This model has another price from this time on.", "price_exists", "effective_at")


HANDLERS: Handlers = {"create": create, "list": listing, "get": one, "change": change, "delete": delete}
