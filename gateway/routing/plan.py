"""The way of one call: its first target, and where it goes on when an attempt fails.

Takes what the name stands for and how the targets are doing; gives one step after the other. In this order:
targets that are well, as often as the name has retries, those first that this call tried least; fallbacks
that are well, each once; and if nothing is well, what cools down, the one first that is soonest over it. So
no call is refused for the health of its targets alone. Awaits nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from ..providers.errors import ProviderError
from .attempts import LONGEST_REST_S, is_fault, is_tried_again, pause_s, rest_s
from .health import Health, Ticket
from .named import NamedModel, Target
from .routes import Destination, Route
from .select import Costs, Selector


def _nobody_knows(target: Target) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Step:
    """Another attempt is to be made, after ``pause_s`` seconds."""

    pause_s: float


class Plan:
    """One call's. ``destination`` is what the client asked for, ``route`` where the call goes now."""

    def __init__(
        self, model: NamedModel, destination: Destination, health: Health, selector: Selector, rng: Random
    ) -> None:
        self.destination = destination
        self.attempt_timeout_s = model.attempt_timeout_s
        self._targets: Sequence[Target] = model.targets
        self._fallbacks: Sequence[Target] = model.fallbacks
        self._left = 1 + model.retries
        self._health = health
        self._selector = selector
        self._rng = rng
        self._costs: Costs = _nobody_knows
        self._stream = False
        self._tries: defaultdict[str, int] = defaultdict(int)
        self._unfit: set[str] = set()
        self._rests_until: dict[str, datetime] = {}
        self._next: Target = model.targets[0]

    @property
    def route(self) -> Route:
        """Where the attempt under way goes, or the next one."""
        return self._next.route

    @property
    def routes(self) -> list[Route]:
        """Everywhere the call may go."""
        return [each.route for each in (*self._targets, *self._fallbacks)]

    @property
    def has_more(self) -> bool:
        """Whether one more attempt could follow."""
        return bool(self._candidates())

    def keep(self, is_served: Callable[[Route], bool]) -> bool:
        """Leave out where the call may not go, unless that is everywhere; whether anything is left."""
        targets = [each for each in self._targets if is_served(each.route)]
        fallbacks = [each for each in self._fallbacks if is_served(each.route)]
        if not targets and not fallbacks:
            return False
        self._targets, self._fallbacks = targets, fallbacks
        return True

    def choose(self, costs: Costs, *, stream: bool) -> Route:
        """The route of the first attempt. Once, before it."""
        self._costs, self._stream = costs, stream
        self._next = self._pick() or self._next
        return self.route

    def start(self) -> Ticket:
        """The attempt begins: at ``route``, which may have become another one, if the target has ceased to be
        well since it was chosen."""
        if not self._health.is_open(self._next.key):
            self._next = self._pick() or self._next
        self._tries[self._next.key] += 1
        self._left -= self._next in self._targets
        return self._health.begin(self._next.key, stream=self._stream)

    def heed(self, ticket: Ticket, error: ProviderError, now: datetime) -> None:
        """The attempt of ``ticket`` failed."""
        if is_fault(error):
            ticket.fail(rest_s(error, now))
            self._let_rest(self._next.key, rest_s(error, now), now)
        elif error.was_asked:
            ticket.succeed()
        else:  # it says nothing of the target, but that this call cannot go there
            self._unfit.add(self._next.key)

    def after(self, error: ProviderError, now: datetime) -> Step | None:
        """What follows on the attempt that failed; None: nothing, its outcome is the call's."""
        target = self._pick() if is_tried_again(error) else None
        if target is None:
            return None
        self._next = target
        rest = self._rests_until.get(target.key, now) - now
        return Step(pause_s(self._tries[target.key], max(0.0, rest.total_seconds()), self._rng))

    def _let_rest(self, key: str, seconds: float, now: datetime) -> None:
        """What the provider asked for binds this call, whether or not the target cools down for it."""
        if seconds > LONGEST_REST_S:
            self._unfit.add(key)
        else:
            self._rests_until[key] = now + timedelta(seconds=seconds)

    def _candidates(self) -> list[Target]:
        targets = self._targets if self._left > 0 else ()
        fallbacks = (each for each in self._fallbacks if not self._tries[each.key])
        return [each for each in (*targets, *fallbacks) if each.key not in self._unfit]

    def _pick(self) -> Target | None:
        candidates = self._candidates()
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        well = [each for each in candidates if self._health.is_open(each.key)]
        if targets := [each for each in well if each in self._targets]:
            fewest = min(self._tries[each.key] for each in targets)
            least_tried = [each for each in targets if self._tries[each.key] == fewest]
            return self._selector.choose(least_tried, self._costs, stream=self._stream)
        if well:
            return well[0]
        return min(candidates, key=self._reluctance, default=None)

    def _reluctance(self, target: Target) -> tuple[float, int]:
        return self._health.cools_until(target.key), self._tries[target.key]
