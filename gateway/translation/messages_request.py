"""Messages, asked of a provider that speaks chat completions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .base import Json, NotTranslatable, an_object, copied, data_url, objects, parts_of, text_of, without

_CHOICES = {"auto": "auto", "none": "none", "any": "required"}
_KNOWN = frozenset(
    "messages system max_tokens stop_sequences stream metadata tools tool_choice output_config thinking "
    "top_k service_tier container context_management mcp_servers cache_control inference_geo".split()
)
"""Of Anthropic's, that are translated, or else left out; what Anthropic does not know goes on as it is."""
_UNSAID = ("thinking", "redacted_thinking")
"""What the model thought is signed by one provider and means nothing to another."""


def chat_request(asked: Mapping[str, Any]) -> Json:
    """What a chat completion asks for the same. Raises ``NotTranslatable``."""
    chat = {**without(asked, _KNOWN), "messages": _conversation(asked)}
    if asked.get("max_tokens") is not None:
        chat["max_completion_tokens"] = asked["max_tokens"]
    if stop := asked.get("stop_sequences"):
        chat["stop"] = stop
    if asked.get("stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    if isinstance(user := an_object(asked.get("metadata")).get("user_id"), str):
        chat["user"] = user
    return chat | _tools(asked) | _format(asked.get("output_config"))


# --- who said what


def _conversation(asked: Mapping[str, Any]) -> list[Json]:
    system = text_of(asked.get("system"))
    chat: list[Json] = [{"role": "system", "content": system}] if system else []
    for message in objects(asked.get("messages")):
        content = parts_of(message.get("content"))
        if message.get("role") == "assistant":
            chat.append(_assistant(content))
        else:
            chat.extend(_user(content))
    return chat


def _assistant(content: list[Json]) -> Json:
    said: Json = {"role": "assistant", "content": text_of(_of(content, "text")) or None}
    if calls := [_tool_call(block) for block in _of(content, "tool_use")]:
        said["tool_calls"] = calls
    strange = [block for block in content if block.get("type") not in ("text", "tool_use", *_UNSAID)]
    if strange:
        raise NotTranslatable(f"a block of the type {str(strange[0].get('type'))[:40]}")
    return said


def _user(content: list[Json]) -> list[Json]:
    """What tools gave comes first, each by itself; what is no text in it can only be the user's."""
    results = _of(content, "tool_result")
    given = [block for each in results for block in parts_of(each.get("content"))]
    shown = [block for block in given if block.get("type") != "text"]
    rest = [block for block in content if block.get("type") != "tool_result"]
    parts = [_part(block) for block in (*shown, *rest)]
    told = [_tool_message(each) for each in results]
    return told + ([{"role": "user", "content": _plainly(parts)}] if parts else [])


def _plainly(parts: list[Json]) -> Any:
    """One text as a text: every server knows that."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _tool_message(result: Json) -> Json:
    text = text_of(result.get("content"))
    told = f"Error: {text}" if result.get("is_error") else text
    return {"role": "tool", "tool_call_id": result.get("tool_use_id"), "content": told}


def _tool_call(block: Json) -> Json:
    function = {"name": block.get("name"), "arguments": json.dumps(an_object(block.get("input")))}
    return {"id": block.get("id"), "type": "function", "function": function}


def _part(block: Json) -> Json:
    kind, source = block.get("type"), an_object(block.get("source"))
    if kind == "text":
        return {"type": "text", "text": block.get("text")}
    if kind == "image" and source.get("type") in ("base64", "url"):
        return {"type": "image_url", "image_url": {"url": _url(source)}}
    if kind == "document" and source.get("type") == "text":
        return {"type": "text", "text": source.get("data")}
    if kind == "document" and source.get("type") == "base64":
        name = block.get("title") or "document.pdf"
        return {"type": "file", "file": {"filename": name, "file_data": _url(source)}}
    raise NotTranslatable(f"a block of the type {str(kind)[:40]} from {str(source.get('type'))[:40]}")


def _url(source: Json) -> str:
    if source.get("type") == "url":
        return str(source.get("url"))
    return data_url(source.get("media_type"), source.get("data"))


def _of(content: list[Json], kind: str) -> list[Json]:
    return [block for block in content if block.get("type") == kind]


# --- tools and formats


def _tools(asked: Mapping[str, Any]) -> Json:
    tools = [_tool(tool) for tool in objects(asked.get("tools"))]
    if not tools:
        return {}
    choice = an_object(asked.get("tool_choice"))
    found: Json = {"tools": tools}
    if choice.get("type") == "tool":
        found["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif (kind := str(choice.get("type"))) in _CHOICES:
        found["tool_choice"] = _CHOICES[kind]
    if choice.get("disable_parallel_tool_use"):
        found["parallel_tool_calls"] = False
    return found


def _tool(tool: Json) -> Json:
    if tool.get("type", "custom") != "custom":
        raise NotTranslatable(f"a tool of the type {str(tool.get('type'))[:40]}")
    function = {**copied(tool, "name", "description"), "parameters": tool.get("input_schema")}
    return {"type": "function", "function": function}


def _format(config: object) -> Json:
    wanted = config.get("format") if isinstance(config, dict) else None
    if not isinstance(wanted, dict):
        return {}
    schema = {"name": "answer", "schema": wanted.get("schema"), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}
