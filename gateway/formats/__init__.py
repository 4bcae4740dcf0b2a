"""The wire formats, and which endpoint speaks which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .base import Format
from .chat import CHAT, COMPLETIONS
from .embeddings import EMBEDDINGS
from .messages import COUNT_TOKENS, MESSAGES
from .plain import IMAGES, MODERATIONS, RERANK, SPEECH, TRANSCRIPTIONS
from .responses import RESPONSES

__all__ = [
    "ANTHROPIC_PATHS",
    "BY_PATH",
    "CHAT",
    "COUNT_TOKENS",
    "EMBEDDINGS",
    "MESSAGES",
    "MESSAGES_PATH",
    "OPENAI_PATHS",
    "Format",
    "format_at",
]

MESSAGES_PATH: Final = "/v1/messages"

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
    MESSAGES_PATH: MESSAGES,
    f"{MESSAGES_PATH}/count_tokens": COUNT_TOKENS,
}
ANTHROPIC_PATHS: Final = frozenset(path for path in BY_PATH if path.startswith(MESSAGES_PATH))
OPENAI_PATHS: Final = frozenset(BY_PATH) - ANTHROPIC_PATHS


def format_at(path: str) -> Format:
    """The format that is spoken at ``path``; where there is no inference the one whose errors are."""
    return BY_PATH.get(path) or (MESSAGES if path.startswith(f"{MESSAGES_PATH}/") else CHAT)
