"""The reference store: everything in this process, gone with it. What a store has to do, said as plainly as
possible; for tests, and for those who want no keys that outlive a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self, TypeVar, cast
from uuid import UUID

from ..errors import StoreConflict
from .accounts import Account, limited, new_account
from .contract import SWEPT_KEPT_S, BudgetStrategy, Claim, Settlement, StoreOptions, Verdict
from .records import ApiKey, Budget, KeyHolder, PriceEntry, Record, User, to_millisecond
from .rows import account_of, changed_values, checked_names, refuse_halves, to_row, with_account

R = TypeVar("R", bound=Record)


@dataclass(slots=True)
class _Held:
    claim: Claim
    is_swept: bool = False


class MemoryStore:
    """See ``Store``. No method awaits anything, so each is atomic."""

    budget_strategies: ClassVar[frozenset[BudgetStrategy]] = frozenset({"for_update", "cas"})

    def __init__(self) -> None:
        self._records: dict[str, dict[str, Record]] = {"key": {}, "user": {}, "budget": {}, "price": {}}
        self._held: dict[UUID, _Held] = {}
        self._master_hash: str | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: StoreOptions, budget_strategy: BudgetStrategy = "cas"
    ) -> AsyncIterator[Self]:
        if options.url.get_secret_value() not in ("memory:", "memory://"):
            raise ValueError("has more than its scheme; write memory:")
        yield cls()

    async def ping(self) -> None:
        pass

    async def migrate(self) -> None:
        pass

    # --- records

    async def add(self, record: Record) -> None:
        refuse_halves(to_row(record))
        if isinstance(record, User):
            record = with_account(record, self._new_account(record.budget_id, _now()))
        if record.id in self._records[record.kind]:
            raise StoreConflict("id", "there is one with this id")
        self._check_unique(record)
        self._records[record.kind][record.id] = record

    async def get(self, kind: type[R], id: str) -> R | None:
        return cast("R | None", self._records[kind.kind].get(id))

    async def list(
        self,
        kind: type[R],
        *,
        after: str | None = None,
        limit: int = 100,
        where: Mapping[str, Any] | None = None,
    ) -> Sequence[R]:
        found = sorted(self._records[kind.kind].values(), key=lambda each: _bytes(each.id))
        wanted = checked_names(kind, where or {}).items()
        matching = [each for each in found if all(getattr(each, name) == value for name, value in wanted)]
        behind = [each for each in matching if after is None or _bytes(each.id) > _bytes(after)]
        return cast("list[R]", behind[:limit])

    async def update(self, kind: type[R], id: str, changes: Mapping[str, Any]) -> R | None:
        record = self._records[kind.kind].get(id)
        refuse_halves(changed_values(kind, changes))
        if record is None:
            return None
        changed = replace(record, **changes)
        if isinstance(changed, User) and "budget_id" in changes:
            account = self._new_account(changed.budget_id, _now())
            changed = with_account(changed, replace(account, reserved_nano=changed.reserved_nano))
        self._check_unique(changed)
        if isinstance(changed, Budget):
            self._apply(changed)
        self._records[kind.kind][id] = changed
        return cast("R", changed)

    async def remove(self, kind: type[R], id: str) -> bool:
        if kind is Budget and any(user.budget_id == id and not user.deleted_at for user in self._users()):
            raise StoreConflict("id", "a user has this budget")
        return self._records[kind.kind].pop(id, None) is not None

    # --- letting in

    async def find_key(self, secret_hash: str) -> KeyHolder | None:
        for key in cast("Iterator[ApiKey]", iter(self._records["key"].values())):
            if secret_hash in (key.secret_hash, key.previous_hash):
                user = await self.get(User, key.user_id)
                return KeyHolder(key, user) if user else None
        return None

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        for id, at in used.items():
            key = cast("ApiKey | None", self._records["key"].get(id))
            if key and (key.last_used_at is None or key.last_used_at < at):
                self._records["key"][id] = replace(key, last_used_at=to_millisecond(at))

    async def keep_master_key(self, secret_hash: str) -> str:
        self._master_hash = self._master_hash or secret_hash
        return self._master_hash

    # --- money

    async def reserve(self, claim: Claim) -> Verdict:
        user = cast("User | None", self._records["user"].get(claim.user_id))
        if claim.id in self._held:
            return "held"
        if user is None or user.deleted_at:
            return "user_missing"
        if user.blocked:
            return "user_blocked"
        self._let_go(claim.made_at, claim.user_id)
        account = account_of(self._user(claim.user_id)).rolled(claim.made_at)
        if not account.has_room_for(claim.amount_nano):
            return "over_budget"
        self._held[claim.id] = _Held(claim)
        self._keep(claim.user_id, account.holding(claim.amount_nano))
        return "held"

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        for each in settlements:
            held = self._held.pop(each.claim.id, None)
            if held is not None:
                account = account_of(self._user(held.claim.user_id))
                freed = account if held.is_swept else account.holding(-held.claim.amount_nano)
                self._keep(held.claim.user_id, freed.charged(each.cost_nano, held.claim.made_at))

    async def sweep(self, now: datetime) -> int:
        forgotten_at = now - timedelta(seconds=SWEPT_KEPT_S)
        self._held = {
            id: each
            for id, each in self._held.items()
            if not (each.is_swept and each.claim.expires_at <= forgotten_at)
        }
        return self._let_go(now)

    async def rebuild_spent(self, user: User, spent_nano: int) -> bool:
        current = await self.get(User, user.id)
        if current is None or current.reserved_nano or account_of(current) != account_of(user):
            return False
        self._keep(user.id, replace(account_of(current), spent_nano=spent_nano))
        return True

    # --- watching

    def pool(self) -> Mapping[str, int]:
        return {"in_use": 0, "idle": 0}

    # --- ours

    def _users(self) -> Iterator[User]:
        return cast("Iterator[User]", iter(self._records["user"].values()))

    def _user(self, id: str) -> User:
        return cast("User", self._records["user"][id])

    def _keep(self, user_id: str, account: Account) -> None:
        self._records["user"][user_id] = with_account(self._user(user_id), account)

    def _new_account(self, budget_id: str | None, now: datetime) -> Account:
        if budget_id is None:
            return new_account(None, None, now)
        budget = cast("Budget | None", self._records["budget"].get(budget_id))
        if budget is None:
            raise StoreConflict("budget_id", "there is no such budget")
        return new_account(budget.limit_nano, budget.reset_every_s, now)

    def _apply(self, budget: Budget) -> None:
        for user in [each for each in self._users() if each.budget_id == budget.id]:
            self._keep(user.id, limited(account_of(user), budget.limit_nano, budget.reset_every_s))

    def _let_go(self, now: datetime, user_id: str | None = None) -> int:
        expired = [
            each
            for each in self._held.values()
            if not each.is_swept and each.claim.expires_at <= now and user_id in (None, each.claim.user_id)
        ]
        for each in expired:
            each.is_swept = True
            account = account_of(self._user(each.claim.user_id))
            self._keep(each.claim.user_id, account.holding(-each.claim.amount_nano))
        return len(expired)

    def _check_unique(self, record: Record) -> None:
        for other in self._records[record.kind].values():
            if isinstance(record, ApiKey) and isinstance(other, ApiKey) and record.id != other.id:
                if record.secret_hash == other.secret_hash:
                    raise StoreConflict("secret_hash", "another key has this secret")
            if isinstance(record, PriceEntry) and isinstance(other, PriceEntry) and record.id != other.id:
                if (record.model, record.effective_at) == (other.model, other.effective_at):
                    raise StoreConflict("effective_at", "this model has another price from this time on")


def _bytes(id: str) -> bytes:
    return id.encode(errors="surrogatepass")


def _now() -> datetime:
    return to_millisecond(datetime.now(UTC))
