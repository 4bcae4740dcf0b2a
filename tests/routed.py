"""Targets, plans and clocks for tests of routing."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

from gateway.providers.errors import ProviderFailed, ProviderRejected
from gateway.routing.health import Health
from gateway.routing.named import NamedModel, Target
from gateway.routing.router import Router
from gateway.routing.routes import Route

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PROVIDERS = {"p", "q"}
OUTAGE = ProviderFailed("The provider failed (500).", provider_status=500)


class Clock:
    """Stands still until it is set."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Dice(Random):
    """Always the middle of a range; ``random`` gives what it is told."""

    def __init__(self, value=0.5):
        super().__init__()
        self.value = value

    def random(self):
        return self.value

    def uniform(self, a, b):
        return (a + b) / 2


def target(key, weight=1, name="fast"):
    provider, _, model = key.partition(":")
    return Target(Route(name, provider, model), weight)


def targets(**weights):
    return tuple(target(f"p:{name}", weight) for name, weight in weights.items())


def health(*keys, clock=None, rng=None, failures=3, cooldown_s=30):
    return Health(keys, failures=failures, cooldown_s=cooldown_s, clock=clock or Clock(), rng=rng or Dice())


def router(clock=None, failures=3, cooldown_s=30, rng=None, providers=PROVIDERS, **members):
    """With one name, ``fast``."""
    model = NamedModel(name="fast", **members)
    return Router(
        providers,
        {"fast": model},
        failures=failures,
        cooldown_s=cooldown_s,
        clock=clock or Clock(),
        rng=rng or Dice(),
    )


def refused(status, retry_after=None):
    """A provider's refusal."""
    if status in (400, 404, 422, 429):
        return ProviderRejected(status, "no", retry_after)
    return ProviderFailed("no", retry_after, provider_status=status)


def fail(health, key, times=1, **members):
    for _ in range(times):
        with health.begin(key, stream=False) as ticket:
            ticket.fail(**members)


def answered(health, key, clock, seconds, stream=False):
    with health.begin(key, stream=stream) as ticket:
        clock.now += seconds
        ticket.answer()
        ticket.succeed()
