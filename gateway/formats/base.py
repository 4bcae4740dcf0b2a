"""What a wire format is: how a request is checked, what its answers tell, how an error looks in it.

What stands here are OpenAI's habits, which most formats share; a format says what it does differently. Pure
and without state. Takes bytes and JSON values; raises nothing but ``BadRequest``, for a request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from backends import tags_text

from ..body import CallBody
from ..errors import BadRequest, GatewayError, UnsupportedMediaType, error_body
from ..estimate import prompt_tokens
from ..inference_request import InferenceRequest, Members, count_in, name_in
from ..providers.base import Event
from ..providers.redaction import error_message
from ..sse import MAX_EVENT_BYTES, event_data
from ..token_usage import OPENAI, CountNames, TokenUsage, read_usage

JSON = "application/json"
MAX_LARGE_EVENT_BYTES = 16 * MAX_EVENT_BYTES
"""One event may hold an image."""


class Format:
    """One wire format. ``has_stream``: a client may ask for one. ``prompt_members`` hold what the model
    reads, ``output_members`` how many tokens it may write at most: none of them, it writes none.
    ``counts``: how the members of ``usage`` are called. ``has_text``: what it writes stands in the answer as
    text. ``is_json``: a plain answer is always a JSON object. ``is_relayed``: it is passed on piece by piece.
    ``is_stream_sure``: who asks for a stream gets one or an error. ``ends_with_message``: the last event of a
    stream is the one that no other follows. ``passed_headers``: of the client, for the provider.
    ``keep_alive`` is sent within a stream while the provider is silent."""

    has_stream: ClassVar[bool] = True
    prompt_members: ClassVar[tuple[str, ...]] = ("input",)
    output_members: ClassVar[tuple[str, ...]] = ()
    counts: ClassVar[CountNames] = OPENAI
    has_text: ClassVar[bool] = True
    is_json: ClassVar[bool] = True
    is_relayed: ClassVar[bool] = False
    is_stream_sure: ClassVar[bool] = True
    ends_with_message: ClassVar[bool] = False
    max_event_bytes: ClassVar[int] = MAX_EVENT_BYTES
    passed_headers: ClassVar[tuple[str, ...]] = ()
    is_user_opaque: ClassVar[bool] = False
    keep_alive: ClassVar[bytes] = b": keep-alive\n\n"

    # --- the request

    def parse(self, raw: bytes, headers: Mapping[str, str] | None = None) -> InferenceRequest:
        """The request in ``raw``; ``headers`` came with it. Raises ``BadRequest`` and
        ``UnsupportedMediaType``."""
        sent = headers or {}
        body = self.read_body(raw, sent)
        model = name_in(body, "model")
        if model is None:
            raise BadRequest("The body names no model.", code="missing_model", param="model")
        user = self.user(body)
        self.check(body)
        stream = self.stream(body)
        return InferenceRequest(
            body=body,
            model=model,
            stream=stream,
            is_relayed=stream or self.is_relayed,
            shows_usage=self.shows_usage(body),
            tags=tags_text(body.get("metadata")),
            prompt_tokens=prompt_tokens(body.members, self.prompt_members),
            output_tokens=self.output_tokens(body),
            choices=self.choices(body),
            images=self.wanted_images(body),
            user=user,
            is_user_opaque=self.is_user_opaque,
            additions=self.additions(body, stream),
            headers=self.upstream_headers(sent),
        )

    def check_type(self, content_type: str) -> None:
        """Raises ``UnsupportedMediaType`` for a body of a type that this endpoint does not take."""
        if content_type != JSON:
            raise UnsupportedMediaType("The body is JSON: send content-type: application/json.")

    def read_body(self, raw: bytes, headers: Mapping[str, str]) -> Members:
        """The body, to be read by its members. Raises ``BadRequest``."""
        return CallBody.parse(raw)

    def check(self, body: Members) -> None:
        """Raises ``BadRequest`` for a body that no provider could answer."""

    def user(self, body: Members) -> str | None:
        """Whom the body names. Raises ``BadRequest``."""
        return name_in(body, "user")

    def stream(self, body: Members) -> bool:
        """Whether the client wants a stream. Raises ``BadRequest``."""
        stream = body.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise BadRequest("stream is true or false.", code="invalid_stream", param="stream")
        if stream and not self.has_stream:
            raise BadRequest("This endpoint is not streamed.", code="invalid_stream", param="stream")
        return bool(stream)

    def output_tokens(self, body: Members) -> int | None:
        """The most of each choice, None if the client does not say."""
        return count_in(body, *self.output_members) if self.output_members else 0

    def choices(self, body: Members) -> int:
        """How many answers the client wants."""
        return 1

    def wanted_images(self, body: Members) -> int:
        """How many images the client wants."""
        return 0

    def shows_usage(self, body: Members) -> bool:
        """Whether the client wants an event of counts alone. Raises ``BadRequest``."""
        return True

    def additions(self, body: Members, stream: bool) -> Mapping[str, Any]:
        """What the provider is told beside what the client says."""
        return {}

    def upstream_headers(self, sent: Mapping[str, str]) -> Mapping[str, str]:
        """The headers for the provider that only the client can know."""
        return {name: sent[name] for name in self.passed_headers if name in sent}

    # --- the answer

    def failure(self, payload: Mapping[str, Any], api_key: str) -> str | None:
        """What went wrong, redacted, if ``payload`` tells of a failure whatever its HTTP status is."""
        if payload.get("error") and not payload.get("choices"):
            return error_message(payload, api_key)
        return None

    def usage(self, payload: Mapping[str, Any]) -> TokenUsage | None:
        """The counts in a plain answer."""
        return read_usage(payload.get("usage"), self.counts)

    def images(self, payload: Mapping[str, Any]) -> int:
        """How many images a plain answer holds."""
        return 0

    def read_event(self, raw: bytes, api_key: str) -> Event:
        """What one event of a stream means; ``api_key`` is taken out of an error's text."""
        raise NotImplementedError

    # --- errors

    def error(self, problem: GatewayError) -> dict[str, Any]:
        """``problem`` as the body of an answer."""
        return error_body(problem.message, problem.type, problem.code, problem.param)

    def error_event(self, problem: GatewayError, last: bytes = b"") -> bytes:
        """``problem`` as the last event of a stream, behind ``last``."""
        return b"data: " + json.dumps(self.error(problem)).encode() + b"\n\n"


def object_in(raw: bytes) -> dict[str, Any]:
    """The JSON object that an event carries; for anything else an empty one: the client may judge it."""
    try:
        payload = json.loads(event_data(raw))
    except (ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


def member(payload: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under ``name``, an empty one if there is none."""
    value = payload.get(name)
    return value if isinstance(value, Mapping) else {}
