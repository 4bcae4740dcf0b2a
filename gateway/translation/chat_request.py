"""A chat completion, asked of a provider that speaks Anthropic's messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import (
    Json,
    NotTranslatable,
    an_object,
    arguments_of,
    copied,
    objects,
    parts_of,
    source_of,
    without,
)

DEFAULT_MAX_TOKENS = 8192
"""For clients that name no bound; messages must have one."""
_KNOWN = frozenset(
    "messages max_tokens max_completion_tokens temperature stop user tools tool_choice parallel_tool_calls "
    "response_format n logprobs top_logprobs modalities audio functions function_call stream_options "
    "metadata seed frequency_penalty presence_penalty logit_bias store reasoning_effort verbosity prediction "
    "prompt_cache_key prompt_cache_retention safety_identifier web_search_options service_tier".split()
)
"""Of OpenAI's, that are translated, or else left out; what OpenAI does not know goes on as it is."""
ONE_OBJECT = (
    "Answer with one JSON object and nothing else: no word before or behind it, and no fence of a code block."
)
"""For ``json_object``: messages have a switch for JSON of a given shape alone, not of any shape."""
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def messages_request(chat: Mapping[str, Any]) -> Json:
    """What messages ask for the same. Raises ``NotTranslatable``."""
    _check(chat)
    wanted = an_object(chat.get("response_format"))
    system, messages = _conversation(objects(chat.get("messages")))
    if wanted.get("type") == "json_object":
        system.append({"type": "text", "text": ONE_OBJECT})
    asked = {**without(chat, _KNOWN), "messages": messages, "max_tokens": _max_tokens(chat)}
    if system:
        asked["system"] = system
    if (temperature := chat.get("temperature")) is not None:
        asked["temperature"] = min(temperature, 1) if isinstance(temperature, int | float) else temperature
    if stop := chat.get("stop"):
        asked["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    if isinstance(user := chat.get("user"), str):
        asked["metadata"] = {"user_id": user}
    return asked | _tools(chat) | _format(wanted)


def _check(chat: Mapping[str, Any]) -> None:
    if (chat.get("n") or 1) != 1:
        raise NotTranslatable("more than one choice")
    if chat.get("logprobs"):
        raise NotTranslatable("logprobs")
    if chat.get("modalities") not in (None, ["text"]):
        raise NotTranslatable("any other answer than text")
    if chat.get("functions"):
        raise NotTranslatable("functions; name them as tools")


def _max_tokens(chat: Mapping[str, Any]) -> Any:
    """None at all is for the provider to refuse: money was held for what the client said."""
    wishes = (chat.get("max_completion_tokens"), chat.get("max_tokens"), DEFAULT_MAX_TOKENS)
    return next(each for each in wishes if each is not None)


# --- who said what


def _conversation(chat: list[Json]) -> tuple[list[Json], list[Json]]:
    """The system's part, and turns of the others; what one of them says in a row is one turn."""
    system: list[Json] = []
    turns: list[Json] = []
    for message in chat:
        if message.get("role") in ("system", "developer"):
            system.extend(_blocks(message.get("content")))
            continue
        role = "assistant" if message.get("role") == "assistant" else "user"
        content = _content(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(content)
        elif content:
            turns.append({"role": role, "content": content})
    return system, turns


def _content(message: Json) -> list[Json]:
    if message.get("role") == "tool":
        result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
        return [{**result, "content": _blocks(message.get("content"))}]
    return _blocks(message.get("content")) + [_tool_use(call) for call in objects(message.get("tool_calls"))]


def _tool_use(call: Json) -> Json:
    function = an_object(call.get("function"))
    given = arguments_of(function.get("arguments"))
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}


def _blocks(content: object) -> list[Json]:
    blocks = [{**_block(part), **copied(part, "cache_control")} for part in parts_of(content)]
    return [block for block in blocks if block.get("text") != ""]  # which Anthropic refuses


def _block(part: Json) -> Json:
    kind = part.get("type")
    if kind in ("text", "refusal"):
        return {"type": "text", "text": part.get(kind)}
    if kind == "image_url":
        return {"type": "image", "source": source_of(_url(part.get("image_url")))}
    if kind == "file" and "file_data" in an_object(part.get("file")):
        return {"type": "document", "source": source_of(str(part["file"]["file_data"]))}
    raise NotTranslatable(f"a part of the type {str(kind)[:40]}")


def _url(image: object) -> str:
    return str(image.get("url") if isinstance(image, dict) else image)


# --- tools and formats


def _tools(chat: Mapping[str, Any]) -> Json:
    tools = [_tool(tool) for tool in objects(chat.get("tools"))]
    if not tools:
        return {}
    choice = _choice(chat.get("tool_choice"))
    if chat.get("parallel_tool_calls") is False and (choice or {}).get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return {"tools": tools} | ({"tool_choice": choice} if choice else {})


def _tool(tool: Json) -> Json:
    if tool.get("type") != "function":
        raise NotTranslatable(f"a tool of the type {str(tool.get('type'))[:40]}")
    function = an_object(tool.get("function"))
    schema = {"type": "object", "properties": {}, **an_object(function.get("parameters"))}
    return {
        **copied(function, "name", "description"),
        "input_schema": schema,
        **copied(tool, "cache_control"),
    }


def _choice(choice: object) -> Json | None:
    if isinstance(choice, str) and choice in _CHOICES:
        return {"type": _CHOICES[choice]}
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "tool", "name": an_object(choice.get("function")).get("name")}
    if choice is None:
        return None
    raise NotTranslatable("this choice of a tool")


def _format(wanted: Json) -> Json:
    kind = wanted.get("type")
    if kind in (None, "text", "json_object"):
        return {}
    if kind == "json_schema":
        schema = an_object(wanted.get("json_schema")).get("schema")
        return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    raise NotTranslatable(f"the format {str(kind)[:40]}")
