"""What is wrong with a configuration, in one line that says where and what would be right.

Takes what YAML or pydantic found; gives a ``ConfigurationError``. Never shows a value: any of them may be a
secret that stands in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr, ValidationError

KeyPath: TypeAlias = tuple[str, ...]
_SHELL_NAME = re.compile(r"[a-z_][a-z0-9_]*")

_SAID: Mapping[str, tuple[str, str]] = {
    "int": ("is not a whole number", "give a whole number"),
    "float": ("is not a number", "give a number"),
    "decimal": ("is not a number", "give a number such as 0.15"),
    "finite_number": ("is not a finite number", "give a finite number"),
    "greater_than_equal": ("is too small", "give at least {ge}"),
    "greater_than": ("is too small", "give more than {gt}"),
    "less_than_equal": ("is too large", "give at most {le}"),
    "less_than": ("is too large", "give less than {lt}"),
    "string_too_short": ("is too short", "give at least {min_length} character(s)"),
    "string_too_long": ("is too long", "give at most {max_length} characters"),
    "string_pattern_mismatch": ("has the wrong form", "match {pattern}"),
    "string": ("is not text", "put the value in quotes"),
    "path": ("is not a path", "put the path in quotes"),
    "literal_error": ("is not one of the choices", "give {expected}"),
    "bool": ("is not true or false", "give true or false"),
    "list": ("is not a list", "write [ONE, OTHER]"),
    "model": ("is not a section", "write its keys below it"),
    "dict": ("is not a section", "write its keys below it"),
    "dataclass": ("is not a section", "write its keys below it"),
}
"""What is wrong and what would be right, by pydantic's error type or its part before the first underscore."""


class ConfigurationError(Exception):
    """The configuration cannot be used. The text is one line: source, key, what is wrong, what would be
    right. ``source`` is ``FILE:LINE``, the name of a variable, or an option of the command line."""

    def __init__(self, source: str, key: str, wrong: str, right: str = "") -> None:
        self.source = source
        self.key = key
        sentence = f"{wrong}; {right}" if right else wrong
        super().__init__(" ".join(": ".join(filter(None, (source, key, sentence))).split()))


class Origins:
    """Which file and line, variable or option each key came from."""

    def __init__(self, file: str = "", lines: Mapping[KeyPath, int] | None = None) -> None:
        self._file = file
        self._lines = lines or {}
        self._overrides: dict[KeyPath, str] = {}

    def note(self, path: KeyPath, source: str) -> None:
        """``path`` was set by ``source``, whatever the file says."""
        self._overrides[path] = source

    def of(self, path: KeyPath) -> str:
        """Where ``path`` came from, or the nearest thing around it."""
        for length in range(len(path), 0, -1):
            around = path[:length]
            if around in self._overrides:
                return self._overrides[around]
            if around in self._lines:
                return f"{self._file}:{self._lines[around]}"
            for other, source in self._overrides.items():
                if other[:length] == around:
                    return source
        return self._file or "environment"

    def error(self, path: KeyPath, wrong: str, right: str = "") -> ConfigurationError:
        """The error to raise for ``path``."""
        return ConfigurationError(self.of(path), ".".join(path), wrong, right)


def from_pydantic(
    error: ValidationError, origins: Origins, known: Mapping[KeyPath, tuple[str, ...]], at: KeyPath = ()
) -> ConfigurationError:
    """The first thing that pydantic found below ``at``; a misspelt key comes before the missing key that it
    left behind. ``known`` holds the keys of a section by its path."""
    found = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")[0]
    path = (*at, *(str(part) for part in found["loc"] if part != "[key]"))
    if found["type"] == "extra_forbidden":
        return origins.error(path, "is not a known key", nearest(path[-1], known.get(path[:-1], ())))
    if found["type"] == "missing":
        return origins.error(path, "is missing", _how_to_set(path))
    return origins.error(path, *_said(found))


def nearest(name: str, names: tuple[str, ...]) -> str:
    """What whoever wrote ``name`` may have meant, out of ``names``."""
    if close := get_close_matches(name.lower(), names, n=1, cutoff=0.75):
        return f"did you mean {close[0]}?"
    return f"known here: {', '.join(names)}" if names else "remove it"


def _how_to_set(path: KeyPath) -> str:
    if all(_SHELL_NAME.fullmatch(part) for part in path):
        return f"add it, or set GATEWAY_{'__'.join(path).upper()}"
    return "add it"


def _said(found: Mapping[str, Any]) -> tuple[str, str]:
    if found["input"] is None:
        return "is empty", "give it a value"
    kind = found["type"]
    said = _SAID.get(kind) or _SAID.get(kind.partition("_")[0])
    context = found.get("ctx", {})
    if said is not None:
        return said[0], said[1].format_map(context)
    wrong, _, right = _without(str(context.get("error", found["msg"])), found["input"]).partition("; ")
    return wrong, right


def _without(text: str, value: object) -> str:
    """``text`` less every text in ``value``: a validator of somebody else's may quote what it was given."""
    for secret in sorted(_texts(value), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str) and value:
        yield value
        yield from _passwords(value)


def _passwords(url: str) -> Iterator[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        return
    if password:
        yield from {password, unquote(password)}
