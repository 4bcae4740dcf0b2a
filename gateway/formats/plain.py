"""Formats that are mostly passed through: moderations, images, speech, transcriptions, rankings.

Some of them are streamed, with events that have names; a last event is followed by nothing but, perhaps,
``[DONE]``, so what is the last one is known when the message ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BadRequest, UnsupportedMediaType
from ..form_body import FormBody
from ..inference_request import Members, count_in
from ..providers.base import Event
from ..sse import event_data
from ..token_usage import INPUT_OUTPUT, OPENAI, TokenUsage, read_usage
from .base import MAX_LARGE_EVENT_BYTES, Format, member, object_in
from .named_events import error_in, event_name

_FORM = "multipart/form-data"
_LAST = (".completed", ".done")


class PlainFormat(Format):
    """What they have in common."""

    has_text = False
    has_stream = False
    is_stream_sure = False
    ends_with_message = True
    max_event_bytes = MAX_LARGE_EVENT_BYTES
    counts = INPUT_OUTPUT

    def read_event(self, raw: bytes, api_key: str) -> Event:
        """See ``Format``."""
        name = event_name(raw)
        if (error := error_in(raw, name, api_key)) is not None:
            return error
        if name.endswith(_LAST):
            return Event(
                raw, self.usage(object_in(raw)), is_done=True, has_text=False, images=self.images_in(name)
            )
        is_done = event_data(raw).strip() == b"[DONE]"
        return Event(raw, is_done=is_done, has_text=self.has_text and name.endswith(".delta"))

    def images_in(self, name: str) -> int:
        """How many images an event of this name holds, of those that can be a stream's last."""
        return 0


class ModerationsFormat(PlainFormat):
    """``/v1/moderations``."""

    def check(self, body: Members) -> None:
        """See ``Format``."""
        _check_there(body, "input")


class ImagesFormat(PlainFormat):
    """``/v1/images/generations``. Without counts of tokens, the images are what is paid for."""

    has_stream = True
    prompt_members = ("prompt",)
    output_members = ("max_output_tokens",)

    def check(self, body: Members) -> None:
        """See ``Format``."""
        _check_there(body, "prompt")

    def choices(self, body: Members) -> int:
        """See ``Format``."""
        return self.wanted_images(body)

    def wanted_images(self, body: Members) -> int:
        """See ``Format``."""
        return max(1, count_in(body, "n") or 1)

    def images(self, payload: Mapping[str, Any]) -> int:
        """See ``Format``."""
        made = payload.get("data")
        return len(made) if isinstance(made, list) else 0

    def images_in(self, name: str) -> int:
        """See ``PlainFormat``."""
        return int(name.endswith(".completed"))


class SpeechFormat(PlainFormat):
    """``/v1/audio/speech``: sound comes out, as one body or in events."""

    is_json = False
    is_relayed = True
    output_members = ("max_output_tokens",)

    def check(self, body: Members) -> None:
        """See ``Format``."""
        _check_there(body, "input")

    def stream(self, body: Members) -> bool:
        """A stream of events has to be asked for by another name here."""
        return str(body.get("stream_format")) == "sse"


class TranscriptionsFormat(PlainFormat):
    """``/v1/audio/transcriptions``: a form with sound in it goes in, text comes out, in JSON or not."""

    has_text = True
    has_stream = True
    is_json = False
    prompt_members = ("prompt",)
    output_members = ("max_output_tokens",)
    passed_headers = ("Content-Type",)

    def check_type(self, content_type: str) -> None:
        """See ``Format``."""
        if content_type != _FORM:
            raise UnsupportedMediaType(f"The body is a form with a file: send content-type: {_FORM}.")

    def read_body(self, raw: bytes, headers: Mapping[str, str]) -> Members:
        """See ``Format``."""
        return FormBody.parse(raw, headers.get("Content-Type", ""))

    def stream(self, body: Members) -> bool:
        """See ``Format``; in a form it is a text."""
        return str(body.get("stream")).lower() in ("true", "1")


class RerankFormat(PlainFormat):
    """``/v1/rerank``. There is no one shape of its counts: OpenAI's, Cohere's and a bare total are known."""

    prompt_members = ("query", "documents")
    counts = OPENAI

    def usage(self, payload: Mapping[str, Any]) -> TokenUsage | None:
        """See ``Format``. Nothing is written, so a total is what was read."""
        found = read_usage(payload.get("usage"), self.counts)
        if found is None:
            return read_usage(member(member(payload, "meta"), "tokens"), INPUT_OUTPUT)
        if found.prompt_tokens is None and found.total_tokens is not None:
            return TokenUsage(found.total_tokens, found.completion_tokens, found.total_tokens)
        return found


def _check_there(body: Members, name: str) -> None:
    if body.get(name) in (None, "", []):
        raise BadRequest(f"{name} is missing or empty.", code=f"invalid_{name}", param=name)


MODERATIONS = ModerationsFormat()
IMAGES = ImagesFormat()
SPEECH = SpeechFormat()
TRANSCRIPTIONS = TranscriptionsFormat()
RERANK = RerankFormat()
