"""Which texts PostgreSQL keeps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import StoreConflict
from .rows import is_whole


def is_kept(*values: Any) -> bool:
    """Whether PostgreSQL keeps all these values: no text with a NUL in it, or with half a character."""
    return all(is_whole(value) and not _has_nul(value) for value in values)


def refuse_what_is_not_kept(row: Mapping[str, Any]) -> None:
    """Raises ``StoreConflict`` for values that are not kept."""
    for name, value in row.items():
        if not is_kept(value):
            raise StoreConflict(name, "holds a character that the database does not keep")


def _has_nul(value: Any) -> bool:
    return isinstance(value, str) and "\0" in value
