"""Which of several targets has the next call.

Takes the targets that may have it and what is known of them; gives one. Counts turns, and does nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import TypeAlias

from .health import Health
from .named import Selection, Target

EXPLORED = 0.05
"""The part of the calls by ``lowest_latency`` that go anywhere, so that one that was slow is noticed to be
fast again."""

Costs: TypeAlias = Callable[[Target], "Decimal | None"]
"""What the call would cost at a target; None: nobody knows."""


class Turns:
    """Calls in turn, by weight: of every ``sum of weights`` calls each target has exactly its share, evenly
    spread (smooth weighted round robin)."""

    def __init__(self) -> None:
        self._credit: dict[str, int] = defaultdict(int)

    def next(self, candidates: Sequence[Target]) -> Target:
        """Whose turn it is among ``candidates``, of which there is at least one."""
        for each in candidates:
            self._credit[each.key] += each.weight
        chosen = max(candidates, key=lambda each: self._credit[each.key])
        self._credit[chosen.key] -= sum(each.weight for each in candidates)
        return chosen


@dataclass(slots=True)
class Selector:
    """How the calls to one name are shared out. Ties are broken by weight."""

    select: Selection
    health: Health
    rng: Random
    turns: Turns = field(default_factory=Turns)

    def choose(self, candidates: Sequence[Target], costs: Costs, *, stream: bool) -> Target:
        """One of ``candidates``, of which there is at least one."""
        if self.select == "least_busy":
            candidates = self._least_busy(candidates)
        elif self.select == "lowest_latency":
            candidates = self._fastest(candidates, stream)
        elif self.select == "cheapest":
            candidates = _cheapest(candidates, costs)
        return self.turns.next(candidates)

    def _least_busy(self, candidates: Sequence[Target]) -> Sequence[Target]:
        fewest = min(self.health.in_flight(each.key) for each in candidates)
        return [each for each in candidates if self.health.in_flight(each.key) == fewest]

    def _fastest(self, candidates: Sequence[Target], stream: bool) -> Sequence[Target]:
        """A target of which nothing is known yet has one call at a time, before all others."""
        if self.rng.random() < EXPLORED:
            return candidates
        known = {each.key: self.health.latency_s(each.key, stream=stream) for each in candidates}
        new = [each for each in candidates if known[each.key] is None]
        if idle := [each for each in new if not self.health.in_flight(each.key)]:
            return idle
        measured = [(latency, each) for each in candidates if (latency := known[each.key]) is not None]
        return [min(measured, key=lambda pair: pair[0])[1]] if measured else candidates


def _cheapest(candidates: Sequence[Target], costs: Costs) -> Sequence[Target]:
    known = [(cost, each) for each in candidates if (cost := costs(each)) is not None]
    if not known:
        return candidates
    lowest = min(cost for cost, _ in known)
    return [each for cost, each in known if cost == lowest]
