"""A record as plain values by column name, and back: what stores that keep rows or documents share.

Whole numbers, truth, texts and times stay what they are. What no two databases keep alike becomes a text:
decimals digit for digit, lists and metadata as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from ..errors import StoreConflict
from .accounts import Account
from .records import ApiKey, Budget, PriceEntry, Record, User

R = TypeVar("R", bound=Record)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

KINDS: tuple[type[Record], ...] = (ApiKey, User, Budget, PriceEntry)

ACCOUNT_COLUMNS = tuple(each.name for each in fields(Account))
"""The part of a user's that only the store itself writes."""


def columns(kind: type[R]) -> tuple[str, ...]:
    """The names of the values of a record of this kind, in the order of its fields."""
    return tuple(each.name for each in fields(kind))


def to_row(record: Record) -> dict[str, Any]:
    """The values of ``record`` by name, in the order of ``columns``."""
    return {name: _plain(getattr(record, name)) for name in columns(type(record))}


def changed_values(kind: type[R], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` as values of a row. Raises ``ValueError`` for a name that is no field, or one that cannot
    be changed: those of the account, and the id."""
    closed = {"id", *(ACCOUNT_COLUMNS if kind is User else ())}
    if wrong := closed.intersection(changes):
        raise ValueError(f"not to be changed in a {kind.kind}: {', '.join(sorted(wrong))}")
    return {name: _plain(value) for name, value in checked_names(kind, changes).items()}


def checked_names(kind: type[R], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """``values`` as they are, whose names are all fields. Raises ``ValueError`` for others."""
    if wrong := set(values).difference(columns(kind)):
        raise ValueError(f"no field of a {kind.kind}: {', '.join(sorted(wrong))}")
    return values


def from_row(kind: type[R], row: Mapping[str, Any]) -> R:
    """The record that ``to_row`` made ``row`` from. Times may have become texts (ISO 8601) or whole
    milliseconds, or have lost their zone, which is UTC then; truth may have become 0 or 1. Other values in
    ``row`` are left out."""
    return kind(**{name: _read(name, row[name]) for name in columns(kind)})


def is_whole(value: Any) -> bool:
    """Whether ``value`` is no text with half a character in it (a lone surrogate), which UTF-8 has no bytes
    for. JSON can name one, so clients can send it."""
    return not isinstance(value, str) or not any("\ud800" <= each <= "\udfff" for each in value)


def refuse_halves(row: Mapping[str, Any]) -> None:
    """Raises ``StoreConflict`` for values that are not whole."""
    for name, value in row.items():
        if not is_whole(value):
            raise StoreConflict(name, "holds half a character")


def account_of(user: User) -> Account:
    """The account of ``user``."""
    return Account(**{name: getattr(user, name) for name in ACCOUNT_COLUMNS})


def with_account(user: User, account: Account) -> User:
    """``user`` with another account."""
    return replace(user, **asdict(account))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return value


def _read(name: str, value: Any) -> Any:
    return _READERS[name](value) if value is not None and name in _READERS else value


def to_milliseconds(moment: datetime) -> int:
    """Whole milliseconds since 1970, for databases that have no times; ``from_row`` reads them."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _moment(value: datetime | str | int) -> datetime:
    if isinstance(value, int):
        return _EPOCH + timedelta(milliseconds=value)
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _texts(value: str) -> tuple[str, ...]:
    return tuple(json.loads(value))


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "blocked": bool,
    "allowed_models": _texts,
    "metadata": json.loads,
    **dict.fromkeys((each.name for each in fields(PriceEntry) if "Decimal" in str(each.type)), Decimal),
    **dict.fromkeys(
        (each.name for kind in KINDS for each in fields(kind) if "datetime" in str(each.type)), _moment
    ),
}
"""By the name of the field, which means the same in every kind of record."""
