"""What was used in the last sixty seconds, exactly. Pure: the time comes with each question."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

LENGTH_S: Final = 60.0


@dataclass(slots=True, eq=False)
class Charge:
    """An amount, and the moment from which on it counts for ``LENGTH_S``."""

    at: float
    amount: int
    is_over: bool = False


@dataclass(slots=True, eq=False)
class Window:
    """The charges of a minute that moves on. What was charged at ``t`` counts until ``t + LENGTH_S``, so that
    no minute, wherever it begins, holds more than its limit."""

    used: int = 0
    _charges: deque[Charge] = field(default_factory=deque)

    def charge(self, amount: int, now: float) -> Charge:
        """Count ``amount`` from ``now`` on, whatever the limit. ``now`` never goes back."""
        charge = Charge(now, amount)
        self._charges.append(charge)
        self.used += amount
        return charge

    def correct(self, charge: Charge, amount: int) -> None:
        """It turned out to be ``amount``. Nothing happens once the charge counts no longer."""
        if not charge.is_over:
            self.used += amount - charge.amount
            charge.amount = amount

    def move(self, now: float) -> None:
        """Let go of what counts no longer."""
        while self._charges and self._charges[0].at + LENGTH_S <= now:
            charge = self._charges.popleft()
            charge.is_over = True
            self.used -= charge.amount

    def room_in(self, amount: int, limit: int, now: float) -> float | None:
        """In how many seconds ``amount`` more fits under ``limit`` if nobody else comes; None: never."""
        self.move(now)
        if amount > limit:
            return None
        excess = self.used + amount - limit
        for charge in self._charges:
            if excess <= 0:
                break
            excess -= charge.amount
            if excess <= 0:
                return _left(charge, now)
        return 0.0

    def empty_in(self, now: float) -> float:
        """In how many seconds nothing counts any longer."""
        self.move(now)
        return _left(self._charges[-1], now) if self._charges else 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing counts. Call ``move`` before."""
        return not self._charges


def _left(charge: Charge, now: float) -> float:
    """For how many seconds it counts still. Floats may make a little more of a minute than it has."""
    return min(LENGTH_S, charge.at + LENGTH_S - now)
