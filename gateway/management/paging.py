"""Pages of records by ascending id: a page begins behind the last id of the one before, whatever was added.

Takes the parameters of a URL; gives one page. The cursor is opaque, and good for its own list alone.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from backends import Record, Store

from ..query_parameters import MAX_VALUE, invalid_parameter, is_storable, parse_limit, parse_text
from .answers import Page

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
PAGING = ("limit", "cursor")

R = TypeVar("R", bound=Record)
A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which page: up to ``limit`` records behind the id ``after``, whose fields are those of ``where``."""

    limit: int
    after: str | None
    where: Mapping[str, str]


def parse_page(parameters: Mapping[str, str], kind: type[Record], filters: tuple[str, ...] = ()) -> Asked:
    """The page that ``parameters`` ask for. Raises ``BadRequest``."""
    return Asked(
        limit=parse_limit(parameters, MAX_LIMIT) or DEFAULT_LIMIT,
        after=_decoded(parameters["cursor"], kind.kind) if "cursor" in parameters else None,
        where={name: parse_text(parameters, name) for name in filters if name in parameters},
    )


async def read_page(store: Store, kind: type[R], asked: Asked, show: Callable[[R], A]) -> Page[A]:
    """The page, from ``store``. Raises ``StoreUnavailable``."""
    found = await store.list(kind, after=asked.after, limit=asked.limit + 1, where=asked.where)
    shown = found[: asked.limit]
    has_more = len(found) > len(shown)
    return Page(
        data=[show(each) for each in shown],
        cursor=_encoded(shown[-1]) if has_more else None,
        has_more=has_more,
    )


def _encoded(record: Record) -> str:
    return base64.urlsafe_b64encode(f"{record.kind}:{record.id}".encode()).decode().rstrip("=")


def _decoded(cursor: str, kind: str) -> str:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        found, _, id = raw.decode().partition(":")
    except (binascii.Error, ValueError):
        found, id = "", ""
    if found != kind or not 1 <= len(id) <= MAX_VALUE or not is_storable(id):
        raise invalid_parameter("cursor", "Send the cursor of the page before, unchanged.")
    return id
