"""All names and the health of what is behind them, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from functools import lru_cache
from random import Random

from .health import Health
from .named import NamedModel, direct
from .plan import Plan
from .routes import Destination, Route, resolve
from .select import Selector

KEPT_NAMES = 1000
"""So many of the names that clients wrote last are not looked at anew."""


class Router:
    """Makes the plan of every call. Also attempts at a provider's model that a client chose itself count for
    the health of the targets; such a call is made all the same, and once."""

    def __init__(
        self,
        providers: Container[str],
        models: Mapping[str, NamedModel],
        *,
        failures: int,
        cooldown_s: float,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        self.models = models
        self._providers = providers
        self._rng = rng or Random()
        keys = [target.key for model in models.values() for target in model.all_targets]
        self.health = Health(keys, failures=failures, cooldown_s=cooldown_s, clock=clock, rng=self._rng)
        self._direct = lru_cache(KEPT_NAMES)(self._find_direct)
        self._alone = Selector("weighted", self.health, self._rng)
        self._selectors = {
            name: Selector(model.select, self.health, self._rng) for name, model in models.items()
        }

    def destination(self, name: str) -> Destination:
        """What ``name`` stands for. Raises ``NotFound``."""
        return self.models.get(name) or resolve(name, self._providers)

    def plan(self, name: str) -> Plan:
        """The way of one call to ``name``. Raises ``NotFound``."""
        if model := self.models.get(name):
            return Plan(model, model, self.health, self._selectors[name], self._rng)
        model, route = self._direct(name)
        return Plan(model, route, self.health, self._alone, self._rng)

    def _find_direct(self, name: str) -> tuple[NamedModel, Route]:
        route = resolve(name, self._providers)
        return direct(route), route
