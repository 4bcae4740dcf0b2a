"""The records as MongoDB documents, and back. Knows no driver and no connection.

A document's ``_id`` is the record's id; every other field has the record's name. Prices and metadata are
text: a price keeps its digits, and the names in metadata may hold what a field's name may not. The fields
that a document has beyond its record are named here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar

from ..errors import StoreUnavailable
from .accounts import Account
from .records import ApiKey, Budget, PriceEntry, Record, User

R = TypeVar("R", bound=Record)
Document: TypeAlias = dict[str, Any]

ACCOUNT = tuple(each.name for each in fields(Account))
TERMS = ("limit_nano", "reset_every_s")
"""What a budget lays down, and the account of each of its users repeats."""

_NAMES: Mapping[type[Any], tuple[str, ...]] = {
    kind: tuple(each.name for each in fields(kind)) for kind in (ApiKey, User, Budget, PriceEntry)
}
_PRICES = {each.name for each in fields(PriceEntry) if each.name.startswith("per_") or "_per_" in each.name}


def document(record: Record) -> Document:
    """The fields of ``record``."""
    names = _NAMES[type(record)]
    return {_field(name): _stored(name, getattr(record, name)) for name in names}


def changed_fields(kind: type[R], changes: Mapping[str, Any]) -> Document:
    """Changes of a record as those of its document. Raises ``ValueError`` for what cannot be changed."""
    fixed = {"id", *ACCOUNT} if kind is User else {"id"}
    for name in changes:
        if name not in _NAMES[kind] or name in fixed:
            raise ValueError(f"{name} of a {kind.kind} cannot be changed")
    return {name: _stored(name, value) for name, value in changes.items()}


def matching(kind: type[R], after: str | None, where: Mapping[str, Any] | None) -> Document:
    """The filter of ``Store.list``. Raises ``ValueError`` for a field that is none."""
    if strange := {*(where or {})} - {*_NAMES[kind]}:
        raise ValueError(f"a {kind.kind} has no {', '.join(sorted(strange))}")
    equal = [{_field(name): {"$eq": value}} for name, value in (where or {}).items()]
    behind = [{"_id": {"$gt": after}}] if after is not None else []
    return {"$and": [*equal, *behind]} if equal or behind else {}


def record(kind: type[R], found: Mapping[str, Any]) -> R:
    """The record that ``found`` is the document of. Raises ``StoreUnavailable`` if it is none."""
    try:
        return kind(**{name: _read(name, found[_field(name)]) for name in _NAMES[kind]})
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        text = f"the {kind.kind} {found.get('_id')!r} was changed by another program"
        raise StoreUnavailable("record_unreadable", text) from error


def account(found: Mapping[str, Any]) -> Account:
    """The account in a user's document."""
    return Account(**{name: found[name] for name in ACCOUNT})


def fields_of(kind: type[R]) -> tuple[str, ...]:
    """The names of a record's fields in its document."""
    return tuple(map(_field, _NAMES[kind]))


def _field(name: str) -> str:
    return "_id" if name == "id" else name


def _stored(name: str, value: Any) -> Any:
    if name == "metadata":
        return json.dumps(dict(value))
    if isinstance(value, Decimal):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _read(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | datetime):
        return value
    if name == "metadata":
        return json.loads(value)
    if name in _PRICES:
        return Decimal(value)
    if isinstance(value, list):
        return tuple(value)
    return int(value) if isinstance(value, int) else value  # the driver has a kind of number of its own
