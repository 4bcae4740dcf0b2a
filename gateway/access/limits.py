"""How often a caller may call: calls and tokens per minute, of the key and of its user.

Takes who calls and how many tokens the call may take; lets it in, or says when. Exact for the calls of this
process; each of several workers counts its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from backends import ApiKey, UsageRecord, User

from ..errors import RateLimited
from ..token_usage import total
from .windows import LENGTH_S, Charge, Window

Unit: TypeAlias = Literal["requests", "tokens"]
UNITS: Final[tuple[Unit, ...]] = ("requests", "tokens")


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit that a call must keep: so many ``unit`` in a minute, of all calls of ``holder``."""

    holder: str
    unit: Unit
    limit: int


def bounds_of(key: ApiKey | None, user: User | None) -> list[Bound]:
    """The limits of a call with ``key`` that ``user`` pays for."""
    found = []
    for record in (key, user):
        if record is not None and record.rate_limit_rpm is not None:
            found.append(Bound(f"{record.kind}:{record.id}", "requests", record.rate_limit_rpm))
        if record is not None and record.rate_limit_tpm is not None:
            found.append(Bound(f"{record.kind}:{record.id}", "tokens", record.rate_limit_tpm))
    return found


@dataclass(slots=True, eq=False)
class _Count:
    """A bound, with what counts against it."""

    bound: Bound
    window: Window

    def remaining(self, now: float) -> int:
        self.window.move(now)
        return max(0, self.bound.limit - self.window.used)


class Admission:
    """A call that was let in."""

    def __init__(
        self, counts: Sequence[_Count], charges: Sequence[Charge], clock: Callable[[], float]
    ) -> None:
        self._counts = counts
        self._charges = charges
        self._clock = clock

    @property
    def is_counted(self) -> bool:
        """Whether any limit counts the call, and waits to hear of its end."""
        return bool(self._counts)

    def settle(self, tokens: int) -> None:
        """The call took so many tokens. May be repeated; the last counts."""
        for count, charge in zip(self._counts, self._charges, strict=True):
            if count.bound.unit == "tokens":
                count.window.correct(charge, tokens)

    def hear(self, record: UsageRecord) -> None:
        """The call has ended with this row. One that nobody counted keeps its estimate if its client left:
        the provider may have done all of it."""
        counted = record.total_tokens
        if counted is None:  # some providers count both parts and never say their sum
            counted = total(record.prompt_tokens, record.completion_tokens)
        if counted is not None:
            self.settle(counted)
        elif record.status != "cancelled":
            self.settle(0)

    def headers(self) -> dict[str, str]:
        """How the limits stand now, for the answer."""
        return _headers(self._counts, self._clock()) if self._counts else {}


class RateLimits:
    """The windows of one process. Those in which nothing counts are dropped once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, Unit], Window] = {}
        self._drop_at = clock() + LENGTH_S

    def __len__(self) -> int:
        return len(self._windows)

    def admit(self, bounds: Sequence[Bound], tokens: int) -> Admission:
        """Let a call in that may take ``tokens``, and count it against all ``bounds``. Raises
        ``RateLimited``; then nothing was counted."""
        now = self._clock()
        self._drop_idle(now)
        if not bounds:
            return Admission((), (), self._clock)
        amounts: Mapping[Unit, int] = {"requests": 1, "tokens": tokens}
        counts = [_Count(each, self._window(each)) for each in bounds]
        waits = [
            (count, count.window.room_in(amounts[count.bound.unit], count.bound.limit, now))
            for count in counts
        ]
        refused = [(count, wait_s) for count, wait_s in waits if wait_s is None or wait_s > 0]
        if refused:
            count, wait_s = max(refused, key=lambda each: math.inf if each[1] is None else each[1])
            raise _refusal(count.bound, amounts[count.bound.unit], wait_s, _headers(counts, now))
        charges = [count.window.charge(amounts[count.bound.unit], now) for count in counts]
        return Admission(counts, charges, self._clock)

    def _window(self, bound: Bound) -> Window:
        return self._windows.setdefault((bound.holder, bound.unit), Window())

    def _drop_idle(self, now: float) -> None:
        if now < self._drop_at:
            return
        self._drop_at = now + LENGTH_S
        for window in self._windows.values():
            window.move(now)
        self._windows = {name: window for name, window in self._windows.items() if not window.is_idle}


def _refusal(bound: Bound, amount: int, wait_s: float | None, headers: dict[str, str]) -> RateLimited:
    if wait_s is None:
        message = f"This call alone may take {amount} {bound.unit}, and the limit is {bound.limit} a minute."
        return RateLimited(message, headers=headers)
    seconds = math.ceil(wait_s)
    message = f"The limit of {bound.limit} {bound.unit} a minute is reached. Try again in {seconds} s."
    return RateLimited(message, headers={**headers, "Retry-After": str(seconds)})


def _headers(counts: Sequence[_Count], now: float) -> dict[str, str]:
    return dict(pair for unit in UNITS for pair in _unit_headers(unit, counts, now))


def _unit_headers(unit: Unit, counts: Sequence[_Count], now: float) -> Iterator[tuple[str, str]]:
    """Of the limit that leaves the least."""
    of_unit = [count for count in counts if count.bound.unit == unit]
    if not of_unit:
        return
    tightest = min(of_unit, key=lambda count: (count.remaining(now), count.bound.limit))
    yield f"x-ratelimit-limit-{unit}", str(tightest.bound.limit)
    yield f"x-ratelimit-remaining-{unit}", str(tightest.remaining(now))
    yield f"x-ratelimit-reset-{unit}", f"{math.ceil(tightest.window.empty_in(now))}s"
