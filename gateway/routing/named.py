"""What a name stands for: one provider's model, or the targets and fallbacks of a named model.

Takes the checked settings; gives frozen values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

from .routes import Route, colon_form

if TYPE_CHECKING:
    from ..settings import ModelSettings

Selection: TypeAlias = Literal["weighted", "least_busy", "lowest_latency", "cheapest"]


@dataclass(frozen=True)
class Target:
    """One place where a call may go, and its share of the calls beside the others' weights."""

    route: Route
    weight: int = 1

    @cached_property
    def key(self) -> str:
        """``provider:model``: under this its health is known, whatever names lead to it."""
        return self.route.price_key


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """See ``ModelSettings``. ``attempt_timeout_s`` None: only the provider's own times count."""

    name: str
    targets: tuple[Target, ...]
    select: Selection = "weighted"
    fallbacks: tuple[Target, ...] = ()
    retries: int = 0
    attempt_timeout_s: float | None = None

    @property
    def openers(self) -> frozenset[str]:
        """See ``Destination``."""
        return frozenset((colon_form(self.name),))

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """Targets and fallbacks."""
        return (*self.targets, *self.fallbacks)


def direct(route: Route) -> NamedModel:
    """A client's own choice: this target alone, once."""
    return NamedModel(name=route.name, targets=(Target(route),))


def named_models(entries: Mapping[str, ModelSettings]) -> dict[str, NamedModel]:
    """The configured names with what they stand for."""
    return {name: _named(name, entry) for name, entry in entries.items()}


def _named(name: str, entry: ModelSettings) -> NamedModel:
    return NamedModel(
        name=name,
        targets=tuple(Target(_route(name, each.model), each.weight) for each in entry.targets),
        select=entry.select,
        fallbacks=tuple(Target(_route(name, each)) for each in entry.fallbacks),
        retries=entry.retries,
        attempt_timeout_s=entry.attempt_timeout_s,
    )


def _route(name: str, selector: str) -> Route:
    provider, _, model = selector.partition(":")
    return Route(name, provider, model)
