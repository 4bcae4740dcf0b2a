"""Keys, users, budgets and prices in one SQLite file: what is done with a connection, as plain functions.

Each runs within one transaction that somebody else began. Contradictions are looked for before anything is
written: the driver would name the column that it met first, in a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from ..errors import StoreConflict
from ..statements import statements
from .accounts import Account, new_account
from .records import ApiKey, Budget, KeyHolder, PriceEntry, Record, User, to_millisecond
from .rows import columns, from_row, is_whole, to_milliseconds, to_row, with_account

R = TypeVar("R", bound=Record)

SQL = statements("store_sqlite")
TABLES: Mapping[type[Any], str] = MappingProxyType(
    {ApiKey: "api_keys", User: "users", Budget: "budgets", PriceEntry: "prices"}
)


class Cursor(Protocol):
    """The part of the driver's cursor that is used."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """The part of the driver's connection that is used. Its rows are found by name."""

    def execute(self, sql: str, values: Mapping[str, Any] | Sequence[Any] = ..., /) -> Cursor: ...


def bound(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as the driver takes them."""
    return {
        name: to_milliseconds(value) if isinstance(value, datetime) else value
        for name, value in values.items()
    }


def add(connection: Connection, record: Record) -> StoreConflict | None:
    """What contradicts ``record``, or None: then it is kept."""
    if get(connection, type(record), record.id) is not None:
        return StoreConflict("id", "there is one with this id")
    if isinstance(record, User):
        account = account_under(connection, record.budget_id)
        if isinstance(account, StoreConflict):
            return account
        record = with_account(record, account)
    if (conflict := _contradiction(connection, record)) is None:
        connection.execute(SQL[f"insert_{record.kind}"], bound(to_row(record)))
    return conflict


def get(connection: Connection, kind: type[R], id: str) -> R | None:
    if not is_whole(id):
        return None
    row = connection.execute(f"SELECT * FROM {TABLES[kind]} WHERE id = ?", (id,)).fetchone()
    return None if row is None else from_row(kind, row)


def page(
    connection: Connection, kind: type[R], after: str | None, limit: int, where: Mapping[str, Any]
) -> list[R]:
    """``where`` has no other names than ``columns(kind)``."""
    if not all(map(is_whole, (after, *where.values()))):
        return []
    conditions = [*(["id > ?"] if after is not None else []), *(f"{name} IS ?" for name in where)]
    values = [*([after] if after is not None else []), *where.values(), limit]
    narrowed = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = connection.execute(f"SELECT * FROM {TABLES[kind]}{narrowed} ORDER BY id LIMIT ?", values)
    return [from_row(kind, row) for row in rows]


def update(
    connection: Connection, kind: type[R], id: str, changes: Mapping[str, Any]
) -> R | StoreConflict | None:
    """The record as it is then, None if there is none, or what contradicts it: then nothing is changed."""
    record = get(connection, kind, id)
    if record is None:
        return None
    changed: Record = replace(record, **changes)
    if isinstance(changed, User) and "budget_id" in changes:
        account = account_under(connection, changed.budget_id)
        if isinstance(account, StoreConflict):
            return account
        changed = with_account(changed, replace(account, reserved_nano=changed.reserved_nano))
    if (conflict := _contradiction(connection, changed)) is not None:
        return conflict
    _write(connection, changed)
    return get(connection, kind, id)


def remove(connection: Connection, kind: type[R], id: str) -> bool | StoreConflict:
    if not is_whole(id):
        return False
    if kind is Budget and connection.execute(SQL["who_has_budget"], {"id": id}).fetchone():
        return StoreConflict("id", "a user has this budget")
    return connection.execute(f"DELETE FROM {TABLES[kind]} WHERE id = ?", (id,)).rowcount > 0


def find_key(connection: Connection, secret_hash: str) -> KeyHolder | None:
    if not is_whole(secret_hash):
        return None
    row = connection.execute(SQL["find_key"], {"secret_hash": secret_hash}).fetchone()
    if row is None:
        return None
    key = from_row(ApiKey, row)
    user = get(connection, User, key.user_id)
    return None if user is None else KeyHolder(key, user)


def touch_keys(connection: Connection, used: Mapping[str, datetime]) -> None:
    for id, at in filter(lambda use: is_whole(use[0]), used.items()):
        connection.execute(SQL["touch_key"], {"id": id, "at": to_milliseconds(at)})


def keep_master_key(connection: Connection, secret_hash: str) -> str:
    connection.execute(SQL["keep_master_key"], {"secret_hash": secret_hash})
    return str(connection.execute(SQL["read_master_key"]).fetchone()[0])


def set_account(connection: Connection, user: User, account: Account) -> None:
    """Write the account of ``user``."""
    values = {"id": user.id, **asdict(account)}
    connection.execute(SQL["set_account"], bound(values))


def account_under(connection: Connection, budget_id: str | None) -> Account | StoreConflict:
    """A new account under this budget, or under none."""
    now = to_millisecond(datetime.now(UTC))
    if budget_id is None:
        return new_account(None, None, now)
    budget = get(connection, Budget, budget_id)
    if budget is None:
        return StoreConflict("budget_id", "there is no such budget")
    return new_account(budget.limit_nano, budget.reset_every_s, now)


def _contradiction(connection: Connection, record: Record) -> StoreConflict | None:
    values = bound(to_row(record))
    if isinstance(record, ApiKey) and connection.execute(SQL["same_secret"], values).fetchone():
        return StoreConflict("secret_hash", "another key has this secret")
    if isinstance(record, PriceEntry) and connection.execute(SQL["same_price"], values).fetchone():
        return StoreConflict("effective_at", "this model has another price from this time on")
    return None


def _write(connection: Connection, record: Record) -> None:
    names = [name for name in columns(type(record)) if name != "id"]
    assigned = ", ".join(f"{name} = :{name}" for name in names)
    values = bound(to_row(record))
    connection.execute(f"UPDATE {TABLES[type(record)]} SET {assigned} WHERE id = :id", values)
    if isinstance(record, Budget):
        connection.execute(SQL["apply_budget"], values)
