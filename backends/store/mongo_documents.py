"""The records as MongoDB documents, and back. Knows no driver and no connection.

A document's ``_id`` is the record's id, and every other field has the record's name and the value that
``rows`` gives it: metadata is text, for the names in it may be what a field's name may not. What a document
has beyond its record, ``mongo_moves`` and ``mongo_records`` tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

from ..errors import StoreUnavailable
from .accounts import Account
from .records import Record
from .rows import ACCOUNT_COLUMNS, checked_names, columns, from_row, to_row

R = TypeVar("R", bound=Record)
Document: TypeAlias = dict[str, Any]

TERMS = ("limit_nano", "reset_every_s")
"""What a budget lays down, and the account of each of its users repeats."""


def document(record: Record) -> Document:
    """The document of ``record``."""
    return {_field(name): value for name, value in to_row(record).items()}


def record(kind: type[R], found: Mapping[str, Any]) -> R:
    """The record that ``found`` is the document of. Raises ``StoreUnavailable`` if it is none."""
    try:
        return from_row(kind, {name: _plain(found[_field(name)]) for name in columns(kind)})
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        text = f"the {kind.kind} {found.get('_id')!r} was changed by another program"
        raise StoreUnavailable("record_unreadable", text) from error


def account(found: Mapping[str, Any]) -> Account:
    """The account in a user's document."""
    return Account(**{name: _plain(found[name]) for name in ACCOUNT_COLUMNS})


def matching(kind: type[R], after: str | None, where: Mapping[str, Any] | None) -> Document:
    """The filter of ``Store.list``. Raises ``ValueError`` for a field that is none."""
    equal = [{_field(name): {"$eq": value}} for name, value in checked_names(kind, where or {}).items()]
    behind = [{"_id": {"$gt": after}}] if after is not None else []
    return {"$and": [*equal, *behind]} if equal or behind else {}


def fields_of(kind: type[R]) -> tuple[str, ...]:
    """The fields of a document that are its record's."""
    return tuple(map(_field, columns(kind)))


def _field(name: str) -> str:
    return "_id" if name == "id" else name


def _plain(value: Any) -> Any:
    """The driver has a kind of whole number of its own."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value
