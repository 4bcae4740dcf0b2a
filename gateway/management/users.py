"""``/v1/users``: who spends. A user that was deleted stays, for its rows, and its id is never given again."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from backends import Store, StoreConflict, User

from ..errors import Conflict, NotFound, UnprocessableEntity
from ..keys import ACCESS
from .answers import UserAnswer
from .bodies import read_body
from .entrance import Handlers, answer, conflicts, enter, path_id
from .issuing import now
from .paging import PAGING, parse_page, read_page
from .requests import UserChange, UserCreate

FILTERS = ("budget_id",)


async def create(request: web.Request) -> web.Response:
    """``POST /v1/users``."""
    store = enter(request)
    asked = await read_body(request, UserCreate)
    values = dict(asked)
    user = User(id=values.pop("user_id"), created_at=now(), **values)
    with conflicts(budget_id=_no_budget()):
        try:
            await store.add(user)
        except StoreConflict as conflict:
            if conflict.field != "id":
                raise
            raise await _taken(store, user.id) from conflict
    request.app[ACCESS].forget_user(user.id)
    return answer(UserAnswer.of(await _find(store, user.id)), 201)


async def listing(request: web.Request) -> web.Response:
    """``GET /v1/users``."""
    store = enter(request, *PAGING, *FILTERS)
    return answer(await read_page(store, User, parse_page(request.query, User, FILTERS), UserAnswer.of))


async def one(request: web.Request) -> web.Response:
    """``GET /v1/users/{id}``."""
    return answer(UserAnswer.of(await _find(enter(request), path_id(request))))


async def change(request: web.Request) -> web.Response:
    """``PATCH /v1/users/{id}``."""
    store = enter(request)
    asked = await read_body(request, UserChange)
    user = await _find(store, path_id(request))
    if user.deleted_at is not None:
        raise Conflict("This user was deleted.", "user_deleted")
    changes = _changes(user, asked.given())
    with conflicts(budget_id=_no_budget()):
        changed = await store.update(User, user.id, changes) if changes else user
    request.app[ACCESS].forget_user(user.id)
    return answer(UserAnswer.of(_found(changed)))


async def delete(request: web.Request) -> web.Response:
    """``DELETE /v1/users/{id}``; its keys open nothing from now on."""
    store = enter(request)
    user = await _find(store, path_id(request))
    if user.deleted_at is None:
        await store.update(User, user.id, {"deleted_at": now()})
    request.app[ACCESS].forget_user(user.id)
    return web.Response(status=204)


def _changes(user: User, given: dict[str, Any]) -> dict[str, Any]:
    """The same budget again is no change: it must not begin a new account."""
    if given.get("budget_id", "") == user.budget_id:
        del given["budget_id"]
    if "metadata" in given:
        given["metadata"] = given["metadata"] or {}
    return given


async def _find(store: Store, id: str) -> User:
    return _found(await store.get(User, id))


def _found(user: User | None) -> User:
    if user is None:
        raise NotFound("There is no user with this id; POST /v1/users makes one.", "user_not_found")
    return user


async def _taken(store: Store, id: str) -> Conflict:
    there = await store.get(User, id)
    if there is not None and there.deleted_at is not None:
        return Conflict("A user with this id was deleted; its rows keep the id.", "user_deleted", "user_id")
    return Conflict("There is a user with this id.", "user_exists", "user_id")


def _no_budget() -> UnprocessableEntity:
    return UnprocessableEntity("There is no such budget.", "budget_not_found", "budget_id")


HANDLERS: Handlers = {"create": create, "list": listing, "get": one, "change": change, "delete": delete}
