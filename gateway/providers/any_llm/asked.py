"""What a client asks, as the arguments of the SDK.

Pure. Takes the body of one endpoint; gives the arguments of the SDK's method for it. Only members of these
lists become arguments: the SDK takes others as well, such as headers and addresses, which are no client's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ...translation.base import NotTranslatable

Arguments: TypeAlias = dict[str, Any]

_CHAT = frozenset(
    "tools tool_choice temperature top_p max_tokens max_completion_tokens response_format stream n stop "
    "presence_penalty frequency_penalty seed parallel_tool_calls logprobs top_logprobs logit_bias "
    "stream_options reasoning_effort".split()
)
_EMBEDDINGS = frozenset(("dimensions", "encoding_format"))
_RESPONSES = frozenset(
    "tools tool_choice temperature top_p max_output_tokens stream instructions max_tool_calls text "
    "parallel_tool_calls reasoning truncation store previous_response_id include background conversation "
    "top_logprobs".split()
)
_WISHES = frozenset(
    "user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention verbosity "
    "prediction".split()
)
"""Left out where the provider has no word for them: the answer is the same without them."""


def chat(body: Mapping[str, Any], is_openai: bool) -> Arguments:
    """Of ``acompletion``. Raises ``NotTranslatable``."""
    named = _named(body, ("model", "messages"), _CHAT, is_openai)
    bound = named.pop("max_completion_tokens", None)
    if bound is not None:  # most of the SDK's providers know the older name alone
        named["max_completion_tokens" if is_openai else "max_tokens"] = bound
    if isinstance(stop := named.get("stop"), str) and not is_openai:
        named["stop"] = [stop]
    return {"model": body["model"], "messages": body["messages"], **named}


def embeddings(body: Mapping[str, Any], is_openai: bool) -> Arguments:
    """Of ``aembedding``. Raises ``NotTranslatable``."""
    named = _named(body, ("model", "input"), _EMBEDDINGS, is_openai)
    return {"model": body["model"], "inputs": body["input"], **named}


def responses(body: Mapping[str, Any], is_openai: bool) -> Arguments:
    """Of ``aresponses``. Raises ``NotTranslatable``."""
    named = _named(body, ("model", "input"), _RESPONSES, is_openai)
    return {"model": body["model"], "input_data": body.get("input", []), **named}


METHODS: Mapping[str, tuple[str, str, Callable[[Mapping[str, Any], bool], Arguments]]] = {
    "/v1/chat/completions": ("acompletion", "SUPPORTS_COMPLETION", chat),
    "/v1/embeddings": ("aembedding", "SUPPORTS_EMBEDDING", embeddings),
    "/v1/responses": ("aresponses", "SUPPORTS_RESPONSES", responses),
}
"""By endpoint: the SDK's method, what says that a provider has it, and its arguments."""


def _named(
    body: Mapping[str, Any], taken: tuple[str, ...], known: frozenset[str], is_openai: bool
) -> Arguments:
    """The members that say something, less those that were ``taken``. OpenAI's own protocol carries what the
    SDK does not know; other protocols have no place for it."""
    given = {name: value for name, value in body.items() if value is not None and name not in taken}
    named = {name: value for name, value in given.items() if name in known}
    others = {name: value for name, value in given.items() if name not in known}
    if is_openai:
        return {**named, "extra_body": others} if others else named
    if strange := [name for name in others if name not in _WISHES]:
        raise NotTranslatable(f"the member {strange[0][:40]}")
    return named
