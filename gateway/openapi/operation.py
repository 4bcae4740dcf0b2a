"""One operation of the API: its route, and what is to be known of it. Plain data, for router and document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from aiohttp.typedefs import Handler
from pydantic import BaseModel

Schema: TypeAlias = Mapping[str, Any]
Shape: TypeAlias = "type[BaseModel] | Schema"
"""A model, or a schema as it stands."""
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the query."""

    name: str
    schema: Schema
    description: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent."""

    shape: Shape
    content_type: str = JSON
    is_required: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back under one status: shapes by content type, none for an empty answer. ``headers`` are
    descriptions by name."""

    description: str
    content: Mapping[str, Shape] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """``path`` is the router's pattern; ``needs`` is the key that opens it; ``errors`` are the statuses that
    come with the gateway's own shape of an error, which is called ``error``."""

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    handler: Handler
    id: str
    tag: str
    summary: str
    answers: Mapping[str, Answer]
    errors: tuple[int, ...] = ()
    error: str = "Error"
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    needs: Literal["nothing", "key", "master"] = "nothing"

    @property
    def template(self) -> str:
        """``path`` without the patterns of its parts."""
        return re.sub(r"\{(\w+):[^{}]+\}", r"{\1}", self.path)

    @property
    def path_parameters(self) -> tuple[str, ...]:
        """The names in ``path``."""
        return tuple(re.findall(r"\{(\w+)\}", self.template))


def json_answer(description: str, shape: Shape, **headers: str) -> Answer:
    """An answer of JSON."""
    return Answer(description, {JSON: shape}, headers)


def reference(name: str) -> Schema:
    """The schema of this name among the components."""
    return {"$ref": f"#/components/schemas/{name}"}
