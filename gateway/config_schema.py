"""What each key of the configuration takes, read from the types of the models, before pydantic judges.

YAML and variables lose what only the target knows: whether ``off`` is a word or false, whether ``010`` is
text. Takes a type and a name; gives the type below it. A schema is a model, a ``dict`` type, or a plain
mapping of names to schemas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from decimal import Decimal
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, SecretStr

from backends import Strategy

from .config_errors import KeyPath, Origins

Kind: TypeAlias = Literal["section", "text", "choice", "flag", "number", "other"]
UNKNOWN: Final = object()
"""The schema of a key that does not exist."""


def below(schema: Any, name: str) -> Any:
    """The schema of the key ``name`` in a section, or of any place in a list; ``UNKNOWN`` when the section
    has no such key."""
    schema = _bare(schema)
    if schema is Any:
        return Any
    if (fields := fields_of(schema)) is not None:
        return fields.get(name, UNKNOWN)
    if get_origin(schema) is list:
        return get_args(schema)[0]
    return get_args(schema)[1] if get_origin(schema) is dict else UNKNOWN


def fields_of(schema: Any) -> Mapping[str, Any] | None:
    """The fixed keys of a section with their schemas; None for any other schema."""
    schema = _bare(schema)
    if isinstance(schema, Mapping):
        return schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return {name: field.annotation for name, field in schema.model_fields.items()}
    if isinstance(schema, type) and is_dataclass(schema) and schema is not Strategy:
        return get_type_hints(schema)
    return None


def kind_of(schema: Any) -> Kind:
    """How a value for ``schema`` is written."""
    schema = _bare(schema)
    if fields_of(schema) is not None or get_origin(schema) is dict:
        return "section"
    if schema is Strategy:
        return "text"
    if get_origin(schema) is Literal:
        return "choice"
    if not isinstance(schema, type):
        return "other"
    if issubclass(schema, bool):
        return "flag"
    if issubclass(schema, int | float | Decimal):
        return "number"
    return "text" if issubclass(schema, str | SecretStr | PurePath) else "other"


def known_keys(schema: Any, values: Any, path: KeyPath = ()) -> dict[KeyPath, tuple[str, ...]]:
    """The fixed keys of every section that ``values`` has, by path."""
    fields = fields_of(schema)
    known = {} if fields is None else {path: tuple(fields)}
    if isinstance(values, list):
        values = {str(index): value for index, value in enumerate(values)}
    if isinstance(values, Mapping):
        for name, value in values.items():
            known |= known_keys(below(schema, name), value, (*path, name))
    return known


def straighten(value: Any, schema: Any, path: KeyPath, origins: Origins) -> Any:
    """``value`` as its writer meant it: an empty section has no keys, and an unquoted ``off`` or ``on`` is
    that word where words are asked for. Raises ``ConfigurationError`` for a number that is none."""
    kind = kind_of(schema)
    if kind == "section" and value is None:
        return {}
    if kind == "section" and isinstance(value, dict):
        return {
            name: straighten(each, below(schema, name), (*path, name), origins)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [
            straighten(each, below(schema, str(index)), (*path, str(index)), origins)
            for index, each in enumerate(value)
        ]
    if isinstance(value, bool) and kind == "choice":
        return "on" if value else "off"
    if isinstance(value, bool) and kind == "number":
        raise origins.error(path, "is true or false", "give a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise origins.error(path, "is not a finite number", "give a finite number")
    return value


def _bare(schema: Any) -> Any:
    """``schema`` without ``Annotated`` and without ``None`` as a choice."""
    origin = get_origin(schema)
    if origin is Annotated:
        return _bare(get_args(schema)[0])
    if origin in (Union, UnionType):
        others = [each for each in get_args(schema) if each is not NoneType]
        return _bare(others[0]) if len(others) == 1 else schema
    return schema
