"""The wire formats, and which endpoint speaks which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .base import Format
from .chat import CHAT, COMPLETIONS
from .embeddings import EMBEDDINGS
from .plain import IMAGES, MODERATIONS, RERANK, SPEECH, TRANSCRIPTIONS
from .responses import RESPONSES

__all__ = ["BY_PATH", "CHAT", "EMBEDDINGS", "Format", "format_at"]

BY_PATH: Final[Mapping[str, Format]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/responses": RESPONSES,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/moderations": MODERATIONS,
    "/v1/images/generations": IMAGES,
    "/v1/audio/speech": SPEECH,
    "/v1/audio/transcriptions": TRANSCRIPTIONS,
    "/v1/rerank": RERANK,
}


def format_at(path: str) -> Format:
    """The format that is spoken at ``path``; OpenAI's where there is no inference."""
    return BY_PATH.get(path, CHAT)
