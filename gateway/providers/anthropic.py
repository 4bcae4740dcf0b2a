"""Anthropic's API: the same HTTP, with another key header, a version, and endpoints of its own."""

from __future__ import annotations

from ..formats import ANTHROPIC_PATHS
from .base import Payload
from .openai import OpenAiProvider

VERSION = "2023-06-01"
"""Of the API, for clients that name none."""


class AnthropicProvider(OpenAiProvider):
    """See ``Provider``."""

    endpoints = ANTHROPIC_PATHS

    def _url(self, endpoint: str) -> str:
        """``base_url`` has no ``/v1`` in Anthropic's own clients; with one it means the same."""
        return self._base_url.removesuffix("/v1") + endpoint

    def _headers(self, accept: str, payload: Payload, request_id: str | None) -> dict[str, str]:
        return {"anthropic-version": VERSION, **super()._headers(accept, payload, request_id)}

    def _credentials(self) -> dict[str, str]:
        return {"x-api-key": self._api_key} if self._api_key else {}
