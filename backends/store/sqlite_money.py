"""Claims and accounts in one SQLite file: what is done with a connection, as plain functions.

Each runs within one transaction that somebody else began and that has the write lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TypeAlias

from .accounts import MAX_ACCOUNT_NANO
from .contract import SWEPT_KEPT_S, BudgetStrategy, Claim, Settlement, Verdict
from .records import User
from .rows import account_of, is_whole, to_milliseconds
from .sqlite_records import SQL, Connection, get, set_account

Hold: TypeAlias = Callable[[Connection, Claim], bool]


def reserve(connection: Connection, hold: Hold, claim: Claim) -> Verdict:
    """As ``Store.reserve``; ``hold`` is one of ``HOLDS``."""
    if not is_whole(claim.user_id):
        return "user_missing"
    if connection.execute(SQL["find_claim"], {"id": str(claim.id)}).fetchone():
        return "held"
    if not hold(connection, claim):
        let_go(connection, claim.made_at, claim.user_id)
        if not hold(connection, claim):
            return _refusal(connection, claim.user_id)
    values = {
        "id": str(claim.id),
        "user_id": claim.user_id,
        "amount_nano": claim.amount_nano,
        "made_at": to_milliseconds(claim.made_at),
        "expires_at": to_milliseconds(claim.expires_at),
    }
    connection.execute(SQL["insert_claim"], values)
    return "held"


def settle(connection: Connection, settlements: Sequence[Settlement]) -> None:
    for each in settlements:
        id = {"id": str(each.claim.id)}
        if (found := connection.execute(SQL["find_claim"], id).fetchone()) is not None:
            connection.execute(SQL["forget_claim"], id)
            freed_nano = 0 if found["swept"] else found["amount_nano"]
            _charge(connection, found["user_id"], freed_nano, each)


def sweep(connection: Connection, now: datetime) -> int:
    forgotten_at = to_milliseconds(now - timedelta(seconds=SWEPT_KEPT_S))
    connection.execute(SQL["forget_swept"], {"forgotten_at": forgotten_at})
    return let_go(connection, now, None)


def let_go(connection: Connection, now: datetime, user_id: str | None) -> int:
    """Free what expired by ``now``, of this user or of all; how many claims."""
    values = {"now": to_milliseconds(now), "user_id": user_id}
    connection.execute(SQL["free_expired"], values)
    return connection.execute(SQL["mark_swept"], values).rowcount


def rebuild_spent(connection: Connection, user: User, spent_nano: int) -> bool:
    current = get(connection, User, user.id)
    if current is None or current.reserved_nano or account_of(current) != account_of(user):
        return False
    set_account(connection, current, replace(account_of(current), spent_nano=spent_nano))
    return True


def _hold_for_update(connection: Connection, claim: Claim) -> bool:
    """Read, decide, write: nobody else writes meanwhile."""
    user = get(connection, User, claim.user_id)
    if user is None or user.deleted_at or user.blocked:
        return False
    account = account_of(user).rolled(claim.made_at)
    if not account.has_room_for(claim.amount_nano):
        return False
    set_account(connection, user, account.holding(claim.amount_nano))
    return True


def _hold_if_room(connection: Connection, claim: Claim) -> bool:
    """One update that decides by itself."""
    values = {
        "user_id": claim.user_id,
        "amount_nano": claim.amount_nano,
        "now": to_milliseconds(claim.made_at),
        "most_nano": MAX_ACCOUNT_NANO,
    }
    return connection.execute(SQL["hold_if_room"], values).rowcount > 0


HOLDS: Mapping[BudgetStrategy, Hold] = MappingProxyType(
    {"for_update": _hold_for_update, "cas": _hold_if_room}
)
"""How room is found and taken, by the name of the strategy; whether there was any."""


def _refusal(connection: Connection, user_id: str) -> Verdict:
    user = get(connection, User, user_id)
    if user is None or user.deleted_at:
        return "user_missing"
    return "user_blocked" if user.blocked else "over_budget"


def _charge(connection: Connection, user_id: str, freed_nano: int, settlement: Settlement) -> None:
    if (user := get(connection, User, user_id)) is not None:
        freed = account_of(user).holding(-freed_nano)
        set_account(connection, user, freed.charged(settlement.cost_nano, settlement.claim.made_at))
