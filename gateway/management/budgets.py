"""``/v1/budgets``: what each of its users may spend. A change holds for all of them at once."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from uuid_utils.compat import uuid7

from backends import Budget, nano_usd

from ..errors import Conflict, NotFound
from .answers import BudgetAnswer
from .bodies import read_body
from .checks import duration_s
from .entrance import Handlers, answer, conflicts, enter, path_id
from .issuing import now
from .paging import PAGING, parse_page, read_page
from .requests import BudgetChange, BudgetCreate


async def create(request: web.Request) -> web.Response:
    """``POST /v1/budgets``."""
    store = enter(request)
    asked = await read_body(request, BudgetCreate)
    budget = Budget(id=str(uuid7()), created_at=now(), **_fields(dict(asked)))
    await store.add(budget)
    return answer(BudgetAnswer.of(budget), 201)


async def listing(request: web.Request) -> web.Response:
    """``GET /v1/budgets``."""
    store = enter(request, *PAGING)
    return answer(await read_page(store, Budget, parse_page(request.query, Budget), BudgetAnswer.of))


async def one(request: web.Request) -> web.Response:
    """``GET /v1/budgets/{id}``."""
    return answer(BudgetAnswer.of(_found(await enter(request).get(Budget, path_id(request)))))


async def change(request: web.Request) -> web.Response:
    """``PATCH /v1/budgets/{id}``."""
    store, id = enter(request), path_id(request)
    changes = _fields((await read_body(request, BudgetChange)).given())
    budget = await (store.update(Budget, id, changes) if changes else store.get(Budget, id))
    return answer(BudgetAnswer.of(_found(budget)))


async def delete(request: web.Request) -> web.Response:
    """``DELETE /v1/budgets/{id}``."""
    in_use = Conflict("A user has this budget; give it another one, or none.", "budget_in_use")
    with conflicts(id=in_use):
        if not await enter(request).remove(Budget, path_id(request)):
            _found(None)
    return web.Response(status=204)


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` as fields of ``Budget``."""
    if "max_usd" in values:
        values["limit_nano"] = nano_usd(values.pop("max_usd"))
    if "reset_every" in values:
        text = values["reset_every"]
        values["reset_every_s"] = None if text is None else duration_s(text)
    return values


def _found(budget: Budget | None) -> Budget:
    if budget is None:
        raise NotFound("There is no budget with this id.", "budget_not_found")
    return budget


HANDLERS: Handlers = {"create": create, "list": listing, "get": one, "change": change, "delete": delete}
