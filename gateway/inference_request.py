"""What a client asks of an inference endpoint, checked before anything else happens.

Pure. Takes the raw body; gives the few members the gateway itself must know, and the body as it goes on to
the provider: as it came, with only the model's name and, for streams, ``stream_options`` changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from backends import tags_text

from .body import CallBody
from .errors import BadRequest
from .estimate import prompt_tokens

MAX_NAME = 256
"""Characters of ``model`` and ``user``: what a column of the usage row holds."""
MAX_COUNT = 10_000_000
"""What a larger number of tokens or choices is taken for; no provider gives so many."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One checked request. ``shows_usage``: the client asked for the stream's usage chunk itself;
    ``prompt_tokens`` are an estimate. ``output_tokens``: the most that the client wants for each of its
    ``choices``, None if it does not say. ``user``: whom the body names."""

    body: CallBody
    model: str
    stream: bool
    shows_usage: bool
    tags: str | None
    prompt_tokens: int
    output_tokens: int | None = None
    choices: int = 1
    user: str | None = None

    def most_tokens(self, default_output_tokens: int) -> int:
        """What the call may take, as far as anybody can tell. ``default_output_tokens``: of each choice, for
        clients that do not say."""
        output = default_output_tokens if self.output_tokens is None else self.output_tokens
        return self.prompt_tokens + self.choices * output

    def upstream_body(self, model: str) -> bytes:
        """The body for the provider, which knows the model as ``model``. Raises ``BadRequest``."""
        changes: dict[str, Any] = {"model": model}
        if self.stream and not self.shows_usage:
            changes["stream_options"] = {**(self.body.get("stream_options") or {}), "include_usage": True}
        return self.body.with_members(changes)


def parse_chat(raw: bytes) -> InferenceRequest:
    """A chat completion. Raises ``BadRequest``."""
    return _parse(raw, _check_messages)


def parse_embeddings(raw: bytes) -> InferenceRequest:
    """Embeddings. Raises ``BadRequest``."""
    request = _parse(raw, _check_input)
    if request.stream:
        raise BadRequest("Embeddings are not streamed.", code="invalid_stream", param="stream")
    return replace(request, output_tokens=0, choices=1)


def _parse(raw: bytes, check: Callable[[CallBody], None]) -> InferenceRequest:
    body = CallBody.parse(raw)
    model = _name(body, "model")
    if model is None:
        raise BadRequest("The body names no model.", code="missing_model", param="model")
    user = _name(body, "user")
    check(body)
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("stream is true or false.", code="invalid_stream", param="stream")
    options = _stream_options(body)
    return InferenceRequest(
        body=body,
        model=model,
        stream=bool(stream),
        shows_usage=options.get("include_usage") is True,
        tags=tags_text(body.get("metadata")),
        prompt_tokens=prompt_tokens(body.members),
        output_tokens=_count(body, "max_completion_tokens", "max_tokens"),
        choices=max(1, _count(body, "n") or 1),
        user=user,
    )


def _name(body: CallBody, key: str) -> str | None:
    name = body.get(key)
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{key} is a text that is not empty.", code=f"invalid_{key}", param=key)
    if len(name) > MAX_NAME:
        message = f"{key} has {len(name)} characters; {MAX_NAME} are the most."
        raise BadRequest(message, code=f"{key}_too_long", param=key)
    return name


def _count(body: CallBody, *keys: str) -> int | None:
    """The largest number of something under ``keys``: providers differ in which of them they heed. What a
    value is else is for the provider to refuse."""
    counts = [each for each in map(body.get, keys) if _is_count(each)]
    return min(int(max(counts)), MAX_COUNT) if counts else None


def _is_count(value: object) -> bool:
    """Whether it is a whole number; for some providers 8.0 is one."""
    if isinstance(value, float):
        return value.is_integer() and value >= 0
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_messages(body: CallBody) -> None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        message = "messages is a list of at least one message."
        raise BadRequest(message, code="invalid_messages", param="messages")


def _check_input(body: CallBody) -> None:
    if body.get("input") in (None, "", []):
        raise BadRequest("input is a text, or a list that is not empty.", code="invalid_input", param="input")


def _stream_options(body: CallBody) -> Mapping[str, Any]:
    options = body.get("stream_options")
    if options is None:
        return {}
    if not isinstance(options, dict):
        message = "stream_options is an object."
        raise BadRequest(message, code="invalid_stream_options", param="stream_options")
    return options
