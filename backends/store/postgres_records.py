"""Records in the PostgreSQL store.

Takes a connection and records; each function is one statement or one transaction. Locks a budget before its
users, and these by ascending id. A text that PostgreSQL does not keep is in no record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeVar

from ..errors import StoreConflict
from ..postgres_schema import Connection, affected
from ..statements import statements
from .accounts import Account, new_account
from .postgres_texts import is_kept, refuse_what_is_not_kept
from .records import ApiKey, Budget, KeyHolder, PriceEntry, Record, User, to_millisecond
from .rows import changed_values, checked_names, columns, from_row, to_row, with_account

R = TypeVar("R", bound=Record)

_SQL = statements("store_postgres")
_TABLES: Mapping[str, str] = {
    ApiKey.kind: "gateway_keys",
    User.kind: "gateway_users",
    Budget.kind: "gateway_budgets",
    PriceEntry.kind: "gateway_prices",
}
_LIMITS = frozenset({"limit_nano", "reset_every_s"})


async def add(connection: Connection, record: Record) -> None:
    """As ``Store.add`` says; the driver's refusal of a duplicate leaves as it is."""
    if not isinstance(record, User):
        await _insert(connection, record)
        return
    async with connection.whole():
        account = await _new_account(connection, record.budget_id)
        await _insert(connection, with_account(record, account))


async def get(connection: Connection, kind: type[R], id: str) -> R | None:
    if not is_kept(id):
        return None
    row = await connection.fetchrow(_statement("get", kind), id)
    return None if row is None else from_row(kind, row)


async def page(
    connection: Connection, kind: type[R], after: str | None, limit: int, where: Mapping[str, Any]
) -> Sequence[R]:
    if not is_kept(after, *where.values()):
        return ()
    conditions, values = _conditions(kind, after, where)
    text = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = await connection.fetch(_statement("list", kind, where=text, limit=str(int(limit))), *values)
    return [from_row(kind, row) for row in rows]


async def update(connection: Connection, kind: type[R], id: str, changes: Mapping[str, Any]) -> R | None:
    values = changed_values(kind, changes)
    if not values or not is_kept(id):
        return await get(connection, kind, id)
    if kind is User and "budget_id" in values:
        row = await _change_budget(connection, id, values)
    elif kind is Budget and _LIMITS.intersection(values):
        row = await _change_limits(connection, id, values)
    else:
        row = await _change(connection, kind, id, values)
    return None if row is None else from_row(kind, row)


async def remove(connection: Connection, kind: type[R], id: str) -> bool:
    if not is_kept(id):
        return False
    if kind is not Budget:
        return await _delete(connection, kind, id)
    async with connection.whole():
        await connection.execute(_SQL["lock_budget"], id)
        if await connection.fetchval(_SQL["is_budget_used"], id):
            raise StoreConflict("id", "a user has this budget")
        return await _delete(connection, kind, id)


# --- letting in


async def find_key(connection: Connection, secret_hash: str) -> KeyHolder | None:
    if not is_kept(secret_hash):
        return None
    row = await connection.fetchrow(_FIND_KEY, secret_hash)
    if row is None:
        return None
    return KeyHolder(_part(ApiKey, row), _part(User, row))


async def touch_keys(connection: Connection, used: Mapping[str, datetime]) -> None:
    moments = {id: to_millisecond(at) for id, at in used.items() if is_kept(id)}
    if moments:
        await connection.execute(_SQL["touch_keys"], list(moments), list(moments.values()))


async def keep_master_key(connection: Connection, secret_hash: str) -> str:
    return str(await connection.fetchval(_SQL["keep_master_key"], secret_hash))


# --- ours


async def _insert(connection: Connection, record: Record) -> None:
    row = to_row(record)
    refuse_what_is_not_kept(row)
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await connection.execute(_statement("add", type(record), values=places), *row.values())


async def _new_account(connection: Connection, budget_id: str | None) -> Account:
    """A new account, whose budget stays as it is until the transaction ends."""
    now = to_millisecond(datetime.now(UTC))
    if budget_id is None:
        return new_account(None, None, now)
    budget = await connection.fetchrow(_SQL["read_budget"], budget_id) if is_kept(budget_id) else None
    if budget is None:
        raise StoreConflict("budget_id", "there is no such budget")
    return new_account(budget["limit_nano"], budget["reset_every_s"], now)


async def _change_budget(connection: Connection, id: str, values: dict[str, Any]) -> Any:
    """Change a user's budget, and with it the account; what is held stays held."""
    async with connection.whole():
        if await get(connection, User, id) is None:
            return None
        account = asdict(await _new_account(connection, values["budget_id"]))
        del account["reserved_nano"]
        return await _change(connection, User, id, values | account)


async def _change_limits(connection: Connection, id: str, values: dict[str, Any]) -> Any:
    """Change a budget, and with it the accounts of its users."""
    async with connection.whole():
        row = await _change(connection, Budget, id, values)
        await connection.execute(_SQL["lock_users_of_budget"], id)
        await connection.execute(_SQL["limit_users_of_budget"], id)
        return row


async def _change(connection: Connection, kind: type[R], id: str, values: dict[str, Any]) -> Any:
    refuse_what_is_not_kept(values)
    places = ", ".join(f"{name} = ${number}" for number, name in enumerate(values, 2))
    return await connection.fetchrow(_statement("update", kind, changes=places), id, *values.values())


async def _delete(connection: Connection, kind: type[R], id: str) -> bool:
    return affected(await connection.execute(_statement("remove", kind), id)) == 1


def _statement(name: str, kind: type[R], **parts: str) -> str:
    return _SQL[name].format(table=_TABLES[kind.kind], names=", ".join(columns(kind)), **parts)


def _conditions(kind: type[R], after: str | None, where: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
    """Conditions and the values in them. Raises ``ValueError`` for a name that is no field."""
    checked_names(kind, where)
    conditions = [f"{name} IS NULL" for name, value in where.items() if value is None]
    wanted = {f"{name} =": value for name, value in where.items() if value is not None}
    if after is not None:
        wanted["id >"] = after
    conditions += [f"{comparison} ${number}" for number, comparison in enumerate(wanted, 1)]
    return conditions, list(wanted.values())


def _aliased(kind: type[R], table: str) -> list[str]:
    """Columns for ``_part``."""
    return [f"{table}.{name} AS {kind.kind}_{name}" for name in columns(kind)]


def _part(kind: type[R], row: Mapping[str, Any]) -> R:
    """One of the records of a row that has several."""
    return from_row(kind, {name: row[f"{kind.kind}_{name}"] for name in columns(kind)})


_FIND_KEY = _SQL["find_key"].format(names=", ".join([*_aliased(ApiKey, "k"), *_aliased(User, "u")]))
