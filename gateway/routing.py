"""Where a call goes: the model name that a client sent, resolved to a provider and that provider's model.

Pure. Takes ``provider:model`` or ``provider/model``; gives a ``Route`` or says that there is no such model.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

from .errors import NotFound

_SELECTOR = re.compile("([^:/]+)[:/](.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Route:
    """``name`` is what the client asked for; ``provider`` and ``model`` are where that goes."""

    name: str
    provider: str
    model: str

    @property
    def price_key(self) -> str:
        """The name under which the model has its price."""
        return f"{self.provider}:{self.model}"


def resolve(name: str, providers: Container[str]) -> Route:
    """The route of ``name``. The first ``:`` or ``/`` divides, for model names may contain either.

    Raises ``NotFound`` (``model_not_found``) for a name without a provider that is configured.
    """
    if (match := _SELECTOR.fullmatch(name)) and match[1] in providers:
        return Route(name, match[1], match[2])
    raise NotFound(
        "No such model. Name it provider:model, with a provider of this gateway's configuration.",
        code="model_not_found",
        param="model",
    )
