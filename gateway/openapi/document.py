"""The table as an OpenAPI 3.1 document. Pure; the same table gives the same text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from .operation import JSON, Answer, Operation, Shape, reference
from .schemas import components

DESCRIPTION = """An LLM gateway that writes exactly one usage row per call into a database that you name.

Errors have OpenAI's shape, or Anthropic's under `/v1/messages`, with a stable `code`; every answer carries
`x-request-id`."""
_SECURITY: Final[list[dict[str, list[str]]]] = [{"bearer": []}, {"header": []}]
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer KEY"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_NEEDS = {
    "nothing": "Needs no key.",
    "key": "Needs a key.",
    "master": "Needs the master key.",
}
_MAY_BE_REPEATED = (429, 503)
_Names: TypeAlias = Mapping[Any, Mapping[str, Any]]
"""References by model and mode."""


def document(table: Sequence[Operation], version: str) -> dict[str, Any]:
    """The document of the operations in ``table``."""
    names, definitions = models_json_schema(
        sorted(_models(table), key=lambda each: (each[0].__name__, each[1])),
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for each in table:
        paths.setdefault(each.template, {})[each.method.lower()] = _operation(each, names)
    errors = sorted({(each.error, status) for each in table for status in each.errors})
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tallygate", "version": version, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(each.tag for each in table)],
        "paths": paths,
        "components": {
            "securitySchemes": _SCHEMES,
            "schemas": _tidy({**definitions["$defs"], **components()}),
            "responses": {f"{shape}{status}": _error(shape, status) for shape, status in errors},
        },
    }


def _tidy(node: Any) -> Any:
    """Schemas without what repeats a member's name, and with the quotes of Markdown. What is keyed by the
    names of members is no schema, so a member may be called ``title``."""
    if isinstance(node, list):
        return [_tidy(each) for each in node]
    if isinstance(node, str):
        return node.replace("``", "`")
    if not isinstance(node, dict):
        return node
    return {name: _tidy(each) for name, each in node.items() if name != "title" or not isinstance(each, str)}


def _models(table: Iterable[Operation]) -> set[tuple[type[BaseModel], JsonSchemaMode]]:
    found: set[tuple[type[BaseModel], JsonSchemaMode]] = set()
    for each in table:
        if each.body is not None and isinstance(each.body.shape, type):
            found.add((each.body.shape, "validation"))
        shapes = (shape for answer in each.answers.values() for shape in answer.content.values())
        found |= {(shape, "serialization") for shape in shapes if isinstance(shape, type)}
    return found


def _operation(each: Operation, names: _Names) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": each.id,
        "tags": [each.tag],
        "summary": f"{each.summary}.",
        "description": _NEEDS[each.needs],
        "security": [] if each.needs == "nothing" else _SECURITY,
        "parameters": _parameters(each),
        "responses": _responses(each, names),
    }
    if each.body is not None:
        schema = _schema(each.body.shape, "validation", names)
        content = {each.body.content_type: {"schema": schema}}
        described["requestBody"] = {"required": each.body.is_required, "content": content}
    return described


def _parameters(each: Operation) -> list[dict[str, Any]]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in each.path_parameters
    ]
    in_query = [
        {"name": one.name, "in": "query", "schema": dict(one.schema)}
        | ({"description": one.description} if one.description else {})
        for one in each.parameters
    ]
    return in_path + in_query


def _responses(each: Operation, names: _Names) -> dict[str, Any]:
    answers = {status: _answer(answer, names) for status, answer in each.answers.items()}
    errors = {str(status): {"$ref": f"#/components/responses/{each.error}{status}"} for status in each.errors}
    return dict(sorted({**errors, **answers}.items()))


def _answer(answer: Answer, names: _Names) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.content:
        described["content"] = {
            kind: {"schema": _schema(shape, "serialization", names)} for kind, shape in answer.content.items()
        }
    if answer.headers:
        described["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    return described


def _schema(shape: Shape, mode: JsonSchemaMode, names: _Names) -> dict[str, Any]:
    return dict(names[shape, mode] if isinstance(shape, type) else shape)


def _error(shape: str, status: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": f"{HTTPStatus(status).phrase}.",
        "content": {JSON: {"schema": reference(shape)}},
    }
    if status in _MAY_BE_REPEATED:
        after = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
        described["headers"] = {"Retry-After": after}
    return described
