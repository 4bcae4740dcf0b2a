"""What all management handlers begin with: the master key, the parameters, the store; and the store's
refusals as ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from backends import Store, StoreConflict

from ..access import require_master
from ..errors import Conflict, GatewayError
from ..keys import PRINCIPAL, STORE
from ..query_parameters import check_names, is_storable

Verb: TypeAlias = Literal["create", "list", "get", "change", "delete"]
Handlers: TypeAlias = Mapping[Verb, Handler]


def enter(request: web.Request, *parameters: str) -> Store:
    """The store, for a caller with the master key whose URL has none but these ``parameters``. Raises
    ``Forbidden`` and ``BadRequest``."""
    require_master(request[PRINCIPAL])
    repeated = frozenset(name for name in request.query if len(request.query.getall(name)) > 1)
    check_names(request.query, repeated, parameters)
    return request.app[STORE]


def path_id(request: web.Request) -> str:
    """The id in the path; an empty one, which nothing has, for one that no store can hold."""
    id = request.match_info["id"]
    return id if is_storable(id) else ""


def answer(shown: BaseModel, status: int = 200) -> web.Response:
    """``shown`` as a response."""
    return web.Response(text=shown.model_dump_json(), status=status, content_type="application/json")


@contextmanager
def conflicts(**by_field: GatewayError) -> Iterator[None]:
    """Raise, for a ``StoreConflict`` over a field, the refusal of that name."""
    try:
        yield
    except StoreConflict as conflict:
        raise by_field.get(conflict.field, Conflict("This contradicts what is there.")) from conflict
