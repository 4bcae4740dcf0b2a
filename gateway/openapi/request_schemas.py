"""Schemas of what a call sends: only the members that the gateway itself looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .operation import Schema

_MODEL: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 256,
    "description": "provider:model or provider/model",
    "examples": ["openai:gpt-4o-mini"],
}
_USER: Schema = {"type": ["string", "null"], "minLength": 1, "maxLength": 256}
_TAGS: Schema = {"type": ["object", "null"], "description": "Stored with the row as its tags."}
_STREAM: Schema = {"type": ["boolean", "null"]}
_TEXT: Schema = {"type": "string", "minLength": 1}
_COUNT: Schema = {"type": ["integer", "null"]}
_TEXTS: Schema = {"type": ["string", "array"], "minLength": 1, "minItems": 1}
_MESSAGES: Schema = {"type": "array", "items": {"type": "object"}, "minItems": 1}


def _body(required: Mapping[str, Schema], **optional: Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "description": "As OpenAI's; members that are not named here go to the provider untouched.",
        "properties": {"model": _MODEL, **required, **optional, "user": _USER, "metadata": _TAGS},
        "required": ["model", *required],
    }


def request_schemas() -> dict[str, Any]:
    """All of them, by name."""
    hello = {"model": "openai:gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    options: Schema = {"type": ["object", "null"]}
    return {
        "ChatCompletionRequest": {
            **_body({"messages": _MESSAGES}, stream=_STREAM, stream_options=options),
            "examples": [hello],
        },
        "CompletionRequest": _body({}, prompt={}, stream=_STREAM, stream_options=options),
        "ResponseRequest": _body({}, input={}, stream=_STREAM, max_output_tokens=_COUNT),
        "EmbeddingsRequest": _body({"input": _TEXTS}),
        "ModerationRequest": _body({"input": _TEXTS}),
        "ImagesRequest": _body({"prompt": _TEXT}, n=_COUNT, stream=_STREAM),
        "SpeechRequest": _body({"input": _TEXT}, stream_format={"type": ["string", "null"]}),
        "TranscriptionRequest": {
            "type": "object",
            "description": "Fields and files that are not named here go to the provider untouched.",
            "properties": {
                "model": _MODEL,
                "file": {"type": "string", "contentMediaType": "application/octet-stream"},
                "stream": {"enum": ["true", "false"]},
            },
            "required": ["model", "file"],
        },
        "MessageRequest": _message(),
        "RerankRequest": _body({}, query={}, documents={"type": ["array", "null"]}),
    }


def _message() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "As Anthropic's; members that are not named here go to the provider untouched.",
        "properties": {
            "model": _MODEL,
            "messages": _MESSAGES,
            "max_tokens": _COUNT,
            "stream": _STREAM,
            "metadata": _TAGS,
        },
        "required": ["model", "messages"],
    }
