"""Money in the PostgreSQL store: what is held, settled and let go.

Takes a connection; each function is one statement or one transaction. Every one locks users by ascending id
and then claims, so that none waits for another that waits for it. Decides as ``accounts`` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import datetime
from typing import Any

from ..postgres_schema import Connection, affected
from ..statements import statements
from .accounts import MAX_ACCOUNT_NANO, Account
from .contract import Claim, Settlement, Verdict
from .rows import ACCOUNT_COLUMNS

LOT = 1000
"""At most so many expired claims are let go or forgotten in one transaction: what is done stays done, also if
the time does not suffice for all."""

_SQL = statements("store_postgres")
_HOLD_AT_ONCE, _SETTLE = (_SQL[name].format(max_nano=MAX_ACCOUNT_NANO) for name in ("hold_at_once", "settle"))


async def hold_at_once(connection: Connection, claim: Claim) -> bool:
    """Hold ``claim`` with one statement; False if that does not tell, because there is no room, a period is
    over, or the claim or its user is not as usual. Nothing was changed then."""
    return affected(await connection.execute(_HOLD_AT_ONCE, *_values(claim))) == 1


async def hold(connection: Connection, claim: Claim) -> Verdict:
    """As ``Store.reserve`` says, with the user's row locked."""
    async with connection.whole():
        found = await connection.fetchrow(_SQL["lock_account"], claim.user_id)
        if found is None:
            return await _unless_known(connection, claim, "user_missing")
        if found["blocked"]:
            return await _unless_known(connection, claim, "user_blocked")
        account = _account(found).rolled(claim.made_at)
        if account.has_room_for(claim.amount_nano):
            return await _take(connection, claim, account)
        if await _is_known(connection, claim):
            return "held"
        expired_nano = await connection.fetchval(_SQL["let_go"], claim.user_id, claim.made_at)
        account = account.holding(-expired_nano)
        if account.has_room_for(claim.amount_nano):
            return await _take(connection, claim, account)
        if account != _account(found):
            await connection.execute(_SQL["keep_account"], claim.user_id, *_written(account))
        return "over_budget"


async def settle(connection: Connection, settlements: Sequence[Settlement]) -> None:
    """As ``Store.settle`` says: all of them, or none."""
    costs: dict[Any, int] = {}
    for each in settlements:
        costs.setdefault(each.claim.id, each.cost_nano)
    async with connection.whole():
        users = await _lock_claimants(connection, list(costs))
        if users:
            await connection.execute(_SETTLE, list(costs), list(costs.values()), users)


async def sweep(connection: Connection, now: datetime) -> int:
    """Let go of what expired by ``now``; how many claims."""
    count = 0
    while True:
        expired = [each["id"] for each in await connection.fetch(_SQL["expired_claims"], now, LOT)]
        if expired:
            async with connection.whole():
                await _lock_claimants(connection, expired)
                count += await connection.fetchval(_SQL["sweep"], expired)
        if len(expired) < LOT:
            return count


async def forget(connection: Connection, before: datetime) -> None:
    """Forget claims that were let go and expired by ``before``."""
    while affected(await connection.execute(_SQL["forget"], before, LOT)) == LOT:
        pass


async def rebuild_spent(connection: Connection, user_id: str, account: Account, spent_nano: int) -> bool:
    """Set what is spent, if the account is still ``account`` and nothing is held."""
    values = (user_id, spent_nano, *astuple(account))
    return affected(await connection.execute(_SQL["rebuild_spent"], *values)) == 1


async def _take(connection: Connection, claim: Claim, account: Account) -> Verdict:
    """Hold ``claim`` in ``account``, which has room and is locked; one that is known is held already."""
    held = account.holding(claim.amount_nano)
    await connection.execute(_SQL["hold"], *_values(claim), *_written(held))
    return "held"


async def _unless_known(connection: Connection, claim: Claim, verdict: Verdict) -> Verdict:
    return "held" if await _is_known(connection, claim) else verdict


async def _is_known(connection: Connection, claim: Claim) -> bool:
    return bool(await connection.fetchval(_SQL["is_known"], claim.id))


async def _lock_claimants(connection: Connection, claim_ids: Sequence[Any]) -> list[str]:
    return [each["id"] for each in await connection.fetch(_SQL["lock_claimants"], claim_ids)]


def _values(claim: Claim) -> tuple[Any, ...]:
    return (claim.id, claim.user_id, claim.amount_nano, claim.made_at, claim.expires_at)


def _written(account: Account) -> tuple[Any, ...]:
    """What a call changes of an account; the limit is the budget's."""
    return (account.spent_nano, account.reserved_nano, account.period_started_at, account.period_ends_at)


def _account(row: Mapping[str, Any]) -> Account:
    return Account(**{name: row[name] for name in ACCOUNT_COLUMNS})
