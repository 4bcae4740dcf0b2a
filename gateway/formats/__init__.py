"""The wire formats, and which endpoint speaks which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .base import Format
from .chat import CHAT
from .embeddings import EMBEDDINGS

__all__ = ["BY_PATH", "CHAT", "EMBEDDINGS", "Format", "format_at"]

BY_PATH: Final[Mapping[str, Format]] = {
    "/v1/chat/completions": CHAT,
    "/v1/embeddings": EMBEDDINGS,
}


def format_at(path: str) -> Format:
    """The format that is spoken at ``path``; OpenAI's where there is no inference."""
    return BY_PATH.get(path, CHAT)
