"""Which provider has which endpoint."""

from __future__ import annotations

from .errors import BadRequest
from .providers.base import Provider


def require_endpoint(provider: Provider, endpoint: str) -> None:
    """Raises ``BadRequest`` (``endpoint_not_offered``) for a provider that has no such endpoint."""
    if not provider.offers(endpoint):
        raise BadRequest(
            f"The provider of this model has nothing at {endpoint}.",
            code="endpoint_not_offered",
            param="model",
        )
