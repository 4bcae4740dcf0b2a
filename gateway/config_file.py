"""The configuration file: YAML in, plain values and the line of each key out.

Replaces ``${VAR}`` and ``${VAR:-default}`` after parsing and inside string values only, so that a variable
can hold any text and never becomes structure. Knows no key by name. Raises ``ConfigurationError`` for what
is no YAML, for a key written twice and for a variable that is not set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .config_errors import ConfigurationError, KeyPath, Origins

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}|\$\{")
_QUOTED = re.compile(r"'(?!<)[^']{2,}'")
_MERGE_TAG = "tag:yaml.org,2002:merge"
_TEXT_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """``values`` as parsed, ``lines`` counted from 1 by path of keys; both empty without a file."""

    name: str = ""
    values: dict[str, Any] = field(default_factory=dict, repr=False)
    lines: dict[KeyPath, int] = field(default_factory=dict)


def read_config_file(path: Path, environ: Mapping[str, str]) -> ConfigFile:
    """The file at ``path``, its variables replaced from ``environ``. Raises ``ConfigurationError``."""
    name = str(path)
    text = _read(path, name)
    lines: dict[KeyPath, int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _note_lines(node, (), lines, name)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _not_yaml(error, name) from None
    except RecursionError:
        raise ConfigurationError(name, "", "is nested too deep", "write it flatter") from None
    except (ValueError, OverflowError):  # of a date or a number that YAML's own rules let through
        raise ConfigurationError(name, "", "has a value that cannot be read", "put it in quotes") from None
    if values is None:
        return ConfigFile(name)
    if not isinstance(values, dict):
        raise ConfigurationError(name, "", "is not a section of keys", "write lines of the form key: value")
    origins = Origins(name, lines)
    return ConfigFile(name, {key: _replaced(values[key], (key,), environ, origins) for key in values}, lines)


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            name, "", f"cannot be read ({reason})", "name a YAML file with --config or GATEWAY_CONFIG"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(name, "", "is not UTF-8 text", "save it as UTF-8") from None


def _not_yaml(error: yaml.YAMLError, name: str) -> ConfigurationError:
    """Without the excerpt that PyYAML adds, and without a name that it quotes: either may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    problem = _QUOTED.sub("a name", getattr(error, "problem", None) or "has characters that YAML forbids")
    source = f"{name}:{mark.line + 1}" if mark else name
    return ConfigurationError(
        source, "", f"is not valid YAML ({problem})", "correct the indentation or quote the value"
    )


def _note_lines(node: yaml.Node | None, path: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    """Fills ``lines``; refuses keys that are no text, and keys that stand twice in one section: YAML would
    silently keep the last."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(item, (*path, str(index)), lines, name)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.tag == _MERGE_TAG:
            continue
        source = f"{name}:{key.start_mark.line + 1}"
        if key.tag != _TEXT_TAG:
            raise ConfigurationError(
                source, ".".join(path), "has a key that is not text", "put the key in quotes"
            )
        below = (*path, key.value)
        if key.value in seen:
            raise ConfigurationError(source, ".".join(below), "is written twice", "keep one of the two")
        seen.add(key.value)
        lines[below] = key.start_mark.line + 1
        _note_lines(value, below, lines, name)


def _replaced(value: Any, path: KeyPath, environ: Mapping[str, str], origins: Origins) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(each, (*path, key), environ, origins) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, (*path, str(index)), environ, origins) for index, each in enumerate(value)]
    if not isinstance(value, str):
        return value
    return _REFERENCE.sub(lambda match: _looked_up(match, path, environ, origins), value)


def _looked_up(match: re.Match[str], path: KeyPath, environ: Mapping[str, str], origins: Origins) -> str:
    name, default = match.groups()
    if name is None:
        raise origins.error(path, "has a ${ that begins no variable", "write ${NAME} or ${NAME:-default}")
    given = environ.get(name)
    if default is not None:
        return given or default  # as a shell does: an empty variable takes the default too
    if given is None:
        raise origins.error(
            path, f"needs the variable {name}, which is not set", f"set {name}, or write ${{{name}:-default}}"
        )
    return given
