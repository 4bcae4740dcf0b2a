"""Who may spend: money is held before a call and settled after it, so that a budget holds for all processes.

Takes an order, what a call is going to be; gives a hold, which says whether the call may be made and which is
settled exactly once, whatever becomes of the call. No connection is held while the call is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Protocol
from uuid import UUID

from backends import Claim, Settlement, Store, User, Verdict, nano_usd, to_millisecond, usd

from ..errors import Forbidden, GatewayError
from ..pricing import Price, foreseen
from .settlements import Settlements

REFUSALS: Mapping[Verdict, tuple[str, str]] = {
    "over_budget": (
        "budget_exceeded",
        "The budget of this user has no room for this call, which may cost {usd:f} USD.",
    ),
    "user_blocked": ("user_blocked", "This user is blocked."),
    "user_missing": ("user_deleted", "The user of this key was deleted."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A call as its budget sees it. ``row_id`` and ``made_at`` are its row's; ``price`` None: nobody knows
    what it costs. ``output_tokens``: the most of each choice, None if the client does not say."""

    row_id: UUID
    made_at: datetime
    spender: User | None
    price: Price | None
    prompt_tokens: int
    output_tokens: int | None
    choices: int = 1
    images: int = 0


class Hold:
    """What a budget said. ``refusal``: the call may not be made, for this reason; nothing is held then."""

    def __init__(
        self,
        refusal: GatewayError | None = None,
        *,
        claim: Claim | None = None,
        settlements: Settlements | None = None,
    ) -> None:
        self.refusal = refusal
        self._claim = claim
        self._settlements = settlements

    @property
    def is_open(self) -> bool:
        """Whether money is held that waits to be settled."""
        return self._claim is not None

    def settle(self, cost: Decimal | None) -> None:
        """Let go of what is held; ``cost`` USD are spent, None: nothing. Only the first call counts. Never
        waits."""
        claim, self._claim = self._claim, None
        if claim is not None and self._settlements is not None:
            self._settlements.put(Settlement(claim=claim, cost_nano=nano_usd(cost or Decimal(0))))


class Budgets(Protocol):
    """How budgets are kept."""

    def bind(self, spender: User | None) -> bool:
        """Whether the calls of ``spender`` have to be held for; a hold for another's is empty."""
        ...

    async def hold(self, order: Order) -> Hold:
        """Hold the money for ``order``, or say why not. Raises ``StoreUnavailable``; then nothing is held.
        May be cancelled likewise."""
        ...


class DisabledBudgets:
    """Nobody counts: every call may be made. See ``Budgets``."""

    def bind(self, spender: User | None) -> bool:
        """Nobody's."""
        return False

    async def hold(self, order: Order) -> Hold:
        """Nothing is held."""
        return Hold()


class ReservingBudgets:
    """The store holds the money, so that many processes keep one budget. ``default_output_tokens`` are
    expected of a call that does not say how many it wants. ``on_refused`` hears of each refusal."""

    def __init__(
        self,
        store: Store,
        settlements: Settlements,
        *,
        ttl_s: float,
        default_output_tokens: int,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._settlements = settlements
        self._ttl = timedelta(seconds=ttl_s)
        self._default_output_tokens = default_output_tokens
        self._on_refused = on_refused

    def bind(self, spender: User | None) -> bool:
        """See ``Budgets``: those who have a budget."""
        return spender is not None and spender.budget_id is not None

    async def hold(self, order: Order) -> Hold:
        """See ``Budgets``. Nothing is asked for a spender without a budget."""
        if order.spender is None or not self.bind(order.spender):
            return Hold()
        claim = self._claim(order, order.spender)
        asking = asyncio.ensure_future(self._store.reserve(claim))
        try:
            verdict = await asyncio.shield(asking)
        except BaseException:  # whether it is held now is not known, so it is let go
            self._settlements.let_go(claim)
            if not asking.done():  # it may be held only then, as no store can take a question back
                asking.add_done_callback(lambda _: self._settlements.let_go(claim))
            raise
        if verdict == "held":
            return Hold(claim=claim, settlements=self._settlements)
        self._on_refused()
        code, message = REFUSALS[verdict]
        return Hold(Forbidden(message.format(usd=usd(claim.amount_nano)), code))

    def _claim(self, order: Order, spender: User) -> Claim:
        made_at = to_millisecond(order.made_at)
        return Claim(
            id=order.row_id,
            user_id=spender.id,
            amount_nano=expected_nano(order, self._default_output_tokens),
            made_at=made_at,
            expires_at=to_millisecond(made_at + self._ttl),
        )


def expected_nano(order: Order, default_output_tokens: int) -> int:
    """What ``order`` may cost in nano-dollars, rounded up; 0 if it has no price, for so reads its row."""
    if order.price is None:
        return 0
    wanted = default_output_tokens if order.output_tokens is None else order.output_tokens
    expected = foreseen(order.price, order.prompt_tokens, wanted * order.choices, order.images)
    return nano_usd(expected, rounding=ROUND_CEILING)
