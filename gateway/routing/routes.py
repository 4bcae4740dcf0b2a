"""Where a call goes: the model name that a client sent, resolved to a provider and that provider's model.

Pure. Takes ``provider:model`` or ``provider/model``; gives a ``Route`` or says that there is no such model.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from ..errors import NotFound

_SELECTOR = re.compile("([^:/]+)[:/](.+)", re.DOTALL)


class Destination(Protocol):
    """What a client may ask for by a name."""

    @property
    def name(self) -> str:
        """As the client wrote it."""
        ...

    @property
    def openers(self) -> frozenset[str]:
        """The names of which a key has to allow one, each as ``provider:model`` where it has a provider."""
        ...


@dataclass(frozen=True)
class Route:
    """``name`` is what the client asked for; ``provider`` and ``model`` are where that goes."""

    name: str
    provider: str
    model: str

    @cached_property
    def price_key(self) -> str:
        """The name under which the model has its price."""
        return f"{self.provider}:{self.model}"

    @property
    def openers(self) -> frozenset[str]:
        """See ``Destination``."""
        return frozenset((self.price_key, f"{self.provider}:*"))


def colon_form(name: str) -> str:
    """``provider/model`` means ``provider:model``, wherever it stands."""
    provider, divider, model = min(name.partition(":"), name.partition("/"), key=lambda parts: len(parts[0]))
    return f"{provider}:{model}" if divider else name


def resolve(name: str, providers: Container[str]) -> Route:
    """The route of ``name``. The first ``:`` or ``/`` divides, for model names may contain either.

    Raises ``NotFound`` (``model_not_found``) for a name without a provider that is configured.
    """
    if (match := _SELECTOR.fullmatch(name)) and match[1] in providers:
        return Route(name, match[1], match[2])
    raise NotFound(
        "No such model. Name it provider:model, with a provider of this gateway's configuration, or by one "
        "of the names that it gives to models.",
        code="model_not_found",
        param="model",
    )
