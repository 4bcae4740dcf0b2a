"""The configuration's variables: ``GATEWAY_<KEY>``, nested with ``__``, and the bare names of the switches.

Takes the environment as a mapping; gives what it sets, each with the variable's name. What it does not know
it warns about, once for each variable, and leaves alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from .config_errors import ConfigurationError, KeyPath, Origins
from .config_schema import UNKNOWN, below, fields_of, kind_of

PREFIX = "GATEWAY_"
CONFIG_VARIABLE = "GATEWAY_CONFIG"
SWITCHES = ("log_writer_strategy", "budget_strategy")
"""Keys that may also be set under their bare names."""

_SERVICE_LINKS = "Kubernetes sets it for a service of the name gateway; enableServiceLinks: false ends that"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that may set a key; ``parts`` is the key's path in lower case."""

    name: str
    parts: KeyPath
    text: str = field(repr=False)


def read_environment(environ: Mapping[str, str]) -> list[Variable]:
    """Every variable that is meant for the gateway. Raises ``ConfigurationError`` for two that set one key.

    Kubernetes sets ``GATEWAY_PORT=tcp://...`` in every pod beside a service of the name ``gateway``: that one
    is ignored with a warning.
    """
    found: dict[KeyPath, Variable] = {}
    for name, text in sorted(environ.items()):
        if not name.upper().startswith(PREFIX) or name == CONFIG_VARIABLE:
            continue
        parts = tuple(name[len(PREFIX) :].lower().split("__"))
        if parts == ("port",) and text.startswith("tcp://"):
            log.warning("injected_variable_ignored", extra={"variable": name, "hint": _SERVICE_LINKS})
            continue
        if parts in found:
            raise ConfigurationError(
                name, ".".join(parts), f"is set by {found[parts].name} too", "unset one of them"
            )
        found[parts] = Variable(name, parts, text)
    for switch in SWITCHES:
        if (switch,) not in found and (bare := environ.get(switch.upper())) is not None:
            found[(switch,)] = Variable(switch.upper(), (switch,), bare)
    return list(found.values())


def apply(variables: Iterable[Variable], values: dict[str, Any], schema: Any, origins: Origins) -> None:
    """Sets in ``values`` what ``variables`` say, and notes it in ``origins``. Raises ``ConfigurationError``
    for a variable that is empty or that names a whole section."""
    for variable in variables:
        path, target = _locate(variable.parts, schema, values)
        if target is UNKNOWN:
            log.warning("unknown_variable_ignored", extra={"variable": variable.name})
            continue
        origins.note(path, variable.name)
        _set(values, path, _parsed(variable, path, target, origins))


def _locate(parts: KeyPath, schema: Any, values: Any) -> tuple[KeyPath, Any]:
    """The key that ``parts`` mean and its schema. A name that a file may spell freely (a provider's) is found
    whatever its case, with ``_`` for what no variable's name can hold."""
    path: KeyPath = ()
    for part in parts:
        there = [*(fields_of(schema) or ()), *(values if isinstance(values, Mapping) else ())]
        name = next((each for each in there if _folded(each) == _folded(part)), part)
        schema = below(schema, name)
        values = values.get(name) if isinstance(values, Mapping) else None
        path = (*path, name)
    return path, schema


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _parsed(variable: Variable, path: KeyPath, target: Any, origins: Origins) -> Any:
    kind = kind_of(target)
    if kind == "section":
        raise origins.error(path, "is a section", f"set {variable.name}__<KEY> for each of its keys")
    if not variable.text:
        raise origins.error(path, "is set but empty", "unset the variable or give it a value")
    if kind in ("text", "choice"):
        return variable.text
    try:
        return yaml.safe_load(variable.text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return variable.text  # no scalar: the target's own check says so


def _set(values: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Where the file has something else than a section on the way, it stays, to be refused as such."""
    *sections, last = path
    for name in sections:
        if values.get(name) is None:
            values[name] = {}
        if not isinstance(values[name], dict):
            return
        values = values[name]
    values[last] = value
