"""The settings as they are in force, for people to read: defaults filled in, secrets masked.

Takes ``Settings``; gives plain values that YAML can write. A value counts as secret by its type, by its
key's name, or by its place in a URL; sinks that are not in use are left out.
"""

from __future__ import annotations

import re
from dataclasses import fields
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from .pricing import Price
from .sections import Settings, sink_options

MASK = "**********"
_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)?$|pwd$|secret|token|credential|(api|access|private)_?key", re.I
)
_USER_INFO = re.compile(r"((?<=://)|^[a-z][a-z0-9+.-]*:(?!//))([^:/?#@\s]*:)?.*@", re.I | re.S)
"""Up to the last ``@``, whatever is before it: a password may hold anything."""
_WORD = "(?:password|passwd|pwd|secret|token|api_?key)"
_OF_URL = re.compile(rf"(?i)([?&]\w*{_WORD}=)[^&]*")
_PARAMETER = re.compile(rf"(?i)(\b\w*{_WORD}\s*=\s*)('[^']*'|[^&;\s]*)")


def effective_settings(settings: Settings) -> dict[str, Any]:
    """Every key with its value, in the order of the contract."""
    values = _plain(settings, exclude={"sinks", "store", "pricing"}) | {
        "log_writer_strategy": str(settings.log_writer_strategy),
        "sinks": _chosen_sink(settings),
        "store": _store(settings),
        "pricing": {name: _price(price) for name, price in settings.pricing.items()},
    }
    return {name: values[name] for name in Settings.model_fields}


def _chosen_sink(settings: Settings) -> dict[str, Any]:
    name = settings.log_writer_strategy.sink
    return {} if name is None else {name: masked(_plain(sink_options(settings)))}


def _store(settings: Settings) -> dict[str, Any]:
    """With its URL, which tells more than its secrets."""
    url = masked(settings.store.url.get_secret_value())
    return {"url": url, **_plain(settings.store, exclude={"url"})}


def _plain(model: BaseModel, exclude: set[str] | None = None) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude=exclude, fallback=str)


def _price(price: Price) -> dict[str, Any]:
    return {each.name: _number(getattr(price, each.name)) for each in fields(price)}


def _number(value: Decimal | None) -> float | str | None:
    """A number to read; as text where a float would not hold every digit."""
    if value is None:
        return None
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def masked(value: Any, key: str = "") -> Any:
    """``value`` less its secrets. ``key`` is the name it stands under."""
    if isinstance(value, dict):
        return {name: masked(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [masked(each, key) for each in value]
    if not isinstance(value, str) or not value:
        return value
    if _SECRET_KEY.search(key):
        return MASK
    hidden = _USER_INFO.sub(lambda match: f"{match[1]}{match[2] or ''}{MASK}@", value)
    for pattern in (_OF_URL, _PARAMETER):
        hidden = pattern.sub(lambda match: match[1] + MASK, hidden)
    return hidden
