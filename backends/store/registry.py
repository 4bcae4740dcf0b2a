"""Which store a URL means. Imports the driver of that one and of no other."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from ..errors import StoreDriverMissing, StoreNotFound
from .contract import Store

_STORES: Mapping[str, tuple[str, str, str | None]] = {
    "memory": ("memory", "MemoryStore", None),
    "sqlite": ("sqlite", "SqliteStore", None),
    "postgresql": ("postgres", "PostgresStore", "postgres"),
    "postgres": ("postgres", "PostgresStore", "postgres"),
    "mongodb": ("mongo", "MongoStore", "mongo"),
    "mongodb+srv": ("mongo", "MongoStore", "mongo"),
}
"""Scheme to module, class and the extra to install."""


def store_schemes() -> tuple[str, ...]:
    """Every scheme that a store's URL may have."""
    return tuple(_STORES)


def load_store(url: str) -> type[Store]:
    """The class of the store at ``url``. Raises ``StoreNotFound`` and ``StoreDriverMissing``; their texts
    show no part of the URL."""
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in _STORES:
        raise StoreNotFound("is no store's URL; it begins with sqlite:, postgresql: or mongodb:")
    module, name, extra = _STORES[scheme]
    try:
        return cast("type[Store]", getattr(import_module(f".{module}", __package__), name))
    except ImportError as error:
        if extra is None or (error.name or "").partition(".")[0] in ("", "backends", "gateway"):
            raise
        raise StoreDriverMissing(
            f"needs {error.name!r}, which is not installed: pip install 'tallygate[{extra}]'"
        ) from error
