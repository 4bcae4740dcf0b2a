"""The contract between the gateway and the database of its keys, users, budgets and prices.

A store answers questions and keeps promises about money; it caches nothing, retries nothing and has no task
of its own. It exists only while it is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal, Protocol, Self, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from .records import KeyHolder, Record, User

BudgetStrategy: TypeAlias = Literal["for_update", "cas"]
Verdict: TypeAlias = Literal["held", "over_budget", "user_blocked", "user_missing"]
R = TypeVar("R", bound=Record)

SWEPT_KEPT_S = 24 * 3600
"""For how many seconds a store remembers a claim that expired, so that a settlement that comes late is still
counted once."""


class StoreOptions(BaseModel):
    """``url``: where the store is; its scheme says which it is. ``timeout_s``: the longest that one request
    takes, the wait for a connection or a lock included. ``max_connections``: of this process, beside the
    sink's. ``migrate``: make or upgrade the schema when first needed; without it only ``migrate()`` does."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: SecretStr = SecretStr("sqlite:///./data/gateway.db")
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    max_connections: int = Field(default=10, ge=1, le=1000)
    migrate: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Money that a call asks to be held before it is spent. ``id`` is the id of the call's row, ``made_at``
    the row's time, cut to the millisecond."""

    id: UUID
    user_id: str
    amount_nano: int
    made_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What became of a claim: it is let go, and ``cost_nano`` is spent; 0 for a call without a cost."""

    claim: Claim
    cost_nano: int


class Store(Protocol):
    """A database of records and accounts.

    Any call raises ``StoreUnavailable`` when the database is down, busy or too slow: nothing is wrong with
    the question, ask again. Any call may be cancelled; whether a write was done is then unknown, and all but
    ``add`` may be repeated without harm. Calls may run at the same time, in many processes.
    """

    budget_strategies: ClassVar[frozenset[BudgetStrategy]]
    """How ``reserve`` may be asked to work here."""

    @classmethod
    def open(
        cls, options: StoreOptions, budget_strategy: BudgetStrategy = "cas"
    ) -> AbstractAsyncContextManager[Self]:
        """The store, open. No network I/O: the gateway starts with the database down. Raises ``ValueError``,
        with a text that shows no secret, for a URL that is none of this store's."""
        ...

    async def ping(self) -> None:
        """Return if the database answers."""
        ...

    async def migrate(self) -> None:
        """Make the schema, or bring it up to this program's; may be repeated, by several at once."""
        ...

    # --- records

    async def add(self, record: Record) -> None:
        """Keep a new record. Raises ``StoreConflict``: there is one with this id, a key with this hash, a
        price of this model from this time on, or a budget of a user's that is not there (field
        ``budget_id``). A user's account is made new from its budget, whatever its fields say."""
        ...

    async def get(self, kind: type[R], id: str) -> R | None:
        """The record, or None. Users that were deleted are found too."""
        ...

    async def list(
        self,
        kind: type[R],
        *,
        after: str | None = None,
        limit: int = 100,
        where: Mapping[str, Any] | None = None,
    ) -> Sequence[R]:
        """Up to ``limit`` records by ascending id (as bytes of UTF-8), from behind the id ``after`` on, whose
        fields are equal to those of ``where`` (texts, booleans and None only). Raises ``ValueError`` for a
        name that is no field."""
        ...

    async def update(self, kind: type[R], id: str, changes: Mapping[str, Any]) -> R | None:
        """Change fields by name, in one step; the record as it is then, or None if there is none. Raises
        ``ValueError`` for a name that is no field, for ``id``, and for those of a user's account.
        ``limit_nano`` and ``reset_every_s`` of a budget take effect for
        all its users as ``accounts.limited`` says. ``budget_id`` of a user begins a new account, with
        nothing spent; what is held stays held. Raises ``StoreConflict`` as ``add`` does."""
        ...

    async def remove(self, kind: type[R], id: str) -> bool:
        """Forget a budget or a price; whether it was there. Raises ``StoreConflict`` for a budget that a user
        who is not deleted has. Keys and users are never removed: they are revoked and deleted by
        ``update``."""
        ...

    # --- letting in

    async def find_key(self, secret_hash: str) -> KeyHolder | None:
        """The key whose secret or previous secret has this hash, with its user: one question. Whether it is
        valid now is for the caller to say."""
        ...

    async def touch_keys(self, used: Mapping[str, datetime]) -> None:
        """Note when keys, by id, were last used. An earlier time changes nothing."""
        ...

    async def keep_master_key(self, secret_hash: str) -> str:
        """The hash of the master key that is kept: ``secret_hash``, if there was none."""
        ...

    # --- money

    async def reserve(self, claim: Claim) -> Verdict:
        """Hold the claim's amount if the account of its user has room for it, atomically: whatever runs at
        the same time, spent and held together never pass the limit. The same claim again is held once. A
        period that is over by ``claim.made_at`` is ended first. Before the answer is ``over_budget``, what
        has expired by then is let go. A user without a budget has an account without a limit."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Let go of claims and charge their cost: each exactly once, however often it is asked for. A claim
        that had expired is charged, too; one that is not known, or is forgotten, changes nothing."""
        ...

    async def sweep(self, now: datetime) -> int:
        """Let go of all claims that expired by ``now`` and were not let go before; how many. Forgets those
        that expired ``SWEPT_KEPT_S`` before."""
        ...

    async def rebuild_spent(self, user: User, spent_nano: int) -> bool:
        """Set what ``user`` has spent, if the account is still as ``user`` says and nothing is held; whether
        it was set."""
        ...

    # --- watching

    def pool(self) -> Mapping[str, int]:
        """Connections of this process by state: ``in_use`` and ``idle``. Asks nobody."""
        ...
