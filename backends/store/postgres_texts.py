"""Which texts PostgreSQL keeps. Pure."""

from __future__ import annotations

from typing import Any


def is_kept(*values: Any) -> bool:
    """Whether PostgreSQL keeps all these values: no text with a NUL in it, or with half a character."""
    return not any(isinstance(value, str) and _has_flaw(value) for value in values)


def _has_flaw(text: str) -> bool:
    return "\0" in text or any("\ud800" <= each <= "\udfff" for each in text)
