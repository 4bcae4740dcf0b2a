"""Schemas of what is not answered from a model: errors, usage, the ledger, models, health, calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import TypeAdapter, create_model

from backends import GROUP_COLUMNS, GROUP_TIMES, SummaryRow, UsageRecord

from .operation import Schema, reference
from .request_schemas import request_schemas

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NULLABLE_TEXT: Schema = {"type": ["string", "null"]}
_ANY_OBJECT: Schema = {"type": "object"}


def closed(properties: Mapping[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """An object of these members and no others, all there but the ``optional``."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": dict(properties),
        "required": required,
        "additionalProperties": False,
    }


def listed(item: Schema) -> Schema:
    """A list of such."""
    return {"type": "array", "items": item}


def _usage_row() -> Schema:
    model = create_model("UsageRecord", **get_type_hints(UsageRecord))
    columns = model.model_json_schema(mode="serialization")["properties"]
    return {**closed(columns), "description": "One call, as it is stored; cost in USD. null: unknown."}


def _summary_group() -> Schema:
    schema = TypeAdapter(SummaryRow).json_schema(mode="serialization")
    groups = dict.fromkeys((*GROUP_COLUMNS, *GROUP_TIMES), NULLABLE_TEXT)
    sums = {each.name: schema["properties"][each.name] for each in fields(SummaryRow) if each.name != "key"}
    return closed({**groups, **sums}, optional=tuple(groups))


def _ledger() -> dict[str, Schema]:
    counts = (*"accepted recovered committed duplicates dead_lettered spooled".split(), "abandoned", "queued")
    return {
        "state": TEXT,
        "strategy": NULLABLE_TEXT,
        "boot_id": NULLABLE_TEXT,
        **dict.fromkeys((*counts, "in_flight"), COUNT),
        "shed": {"type": "object", "additionalProperties": COUNT},
        "unaccounted": {"type": "integer", "description": "Anything but 0 is a bug."},
        "oldest_row_s": {"type": "number"},
    }


def _error() -> Schema:
    return closed(
        {
            "error": closed(
                {
                    "message": {**TEXT, "description": "For people."},
                    "type": TEXT,
                    "code": {**NULLABLE_TEXT, "description": "Stable; for programs."},
                    "param": {**NULLABLE_TEXT, "description": "The member or parameter that is wrong."},
                }
            )
        }
    )


def _anthropic_error() -> Schema:
    told = {"type": TEXT, "message": {**TEXT, "description": "For people."}}
    code = {**NULLABLE_TEXT, "description": "Stable; for programs."}
    return closed({"type": {"const": "error"}, "error": closed({**told, "code": code})})


def components() -> dict[str, Any]:
    """All of them, by name."""
    model = closed({"id": TEXT, "object": {"const": "model"}, "created": COUNT, "owned_by": TEXT})
    worker = {"type": "object", "properties": _ledger(), "required": ["state", "boot_id"]}
    page = {"data": listed(reference("UsageRow")), "cursor": NULLABLE_TEXT, "has_more": {"type": "boolean"}}
    return {
        "Error": _error(),
        "AnthropicError": _anthropic_error(),
        "UsageRow": _usage_row(),
        "UsagePage": closed(page),
        "UsageSummary": closed({"data": listed(_summary_group()), "group_by": listed(TEXT)}),
        "LogWriter": {
            "type": "object",
            "description": "The ledger of all workers in sum, and of each.",
            "properties": {**_ledger(), "workers": listed(worker)},
            "required": [*_ledger(), "workers"],
        },
        "Model": model,
        "ModelList": closed({"object": {"const": "list"}, "data": listed(reference("Model"))}),
        "Ready": closed({"status": {"const": "ready"}, "degraded": listed(TEXT)}),
        "NotReady": closed(
            {"status": TEXT, "reason": TEXT, "degraded": listed(TEXT)}, optional=("degraded",)
        ),
        **request_schemas(),
        "ServerSentEvent": {
            **_ANY_OBJECT,
            "description": "One event; its data is a chunk as JSON, or at the end [DONE].",
            "properties": {"data": TEXT},
        },
        "ProviderAnswer": {**_ANY_OBJECT, "description": "As the provider gave it."},
    }
