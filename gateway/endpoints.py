"""Which provider has which endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import BadRequest
from .providers.base import Provider
from .routing import Plan


def keep_to_endpoint(plan: Plan, providers: Mapping[str, Provider], endpoint: str) -> None:
    """Leave out of ``plan`` the providers without such an endpoint. Raises ``BadRequest`` if none has it."""
    if not plan.keep(lambda route: providers[route.provider].offers(endpoint)):
        raise _not_offered(endpoint)


def require_endpoint(provider: Provider, endpoint: str) -> None:
    """Raises ``BadRequest`` (``endpoint_not_offered``) for a provider that has no such endpoint."""
    if not provider.offers(endpoint):
        raise _not_offered(endpoint)


def _not_offered(endpoint: str) -> BadRequest:
    message = f"The provider of this model has nothing at {endpoint}."
    return BadRequest(message, code="endpoint_not_offered", param="model")
