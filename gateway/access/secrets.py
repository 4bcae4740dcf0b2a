"""What a key is made of, and what is kept of it. Pure but for the chance in ``make_key``."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

PREFIX: Final = "tg-"
RANDOM_BYTES = 32
HINT_CHARACTERS = 7


def make_key() -> str:
    """A new secret, to be shown once: so random that nobody can guess it."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def hash_of(secret: str) -> str:
    """The SHA-256 of ``secret`` in hex, which is what is kept of it. A slow hash is for passwords, which can
    be guessed."""
    # Header bytes that are no UTF-8 arrive as lone surrogates.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def hint_of(secret: str) -> str:
    """The first characters of ``secret``, by which people know it again."""
    return secret[:HINT_CHARACTERS]
