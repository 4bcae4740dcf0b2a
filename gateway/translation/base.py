"""What a translation is, and what both directions need.

Pure. Takes JSON values and events of one format; gives those of the other. What the other format has no word
for is refused if the answer would be another one without it, and left out if it is but a wish.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from ..providers.base import Event
from ..providers.errors import ProviderRejected
from ..token_usage import TokenUsage

Json: TypeAlias = dict[str, Any]
_DATA_URL = re.compile(r"data:([\w.+/-]+);base64,(.*)", re.DOTALL)


class NotTranslatable(ProviderRejected):
    """The provider's format has no word for what the client asks."""

    was_asked = False

    def __init__(self, what: str) -> None:
        super().__init__(400, f"This model's provider cannot do this: {what}.")
        self.code = "not_translatable"


class EventTranslation(Protocol):
    """Of one stream. Synchronous."""

    def events(self, event: Event) -> list[Event]:
        """What the client is told instead of ``event``; may be nothing. Counts and errors are kept."""
        ...


class Translation(Protocol):
    """From the client's format to the provider's and back. ``endpoint`` is the provider's."""

    endpoint: str

    def request(self, asked: Mapping[str, Any]) -> Json:
        """What the provider is asked. Raises ``NotTranslatable``."""
        ...

    def answer(self, given: Mapping[str, Any], usage: TokenUsage | None) -> Json:
        """What the client is answered."""
        ...

    def stream(self) -> EventTranslation:
        """For one stream."""
        ...


def parts_of(content: object) -> list[Json]:
    """A content as its parts: a text is one of them."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [each for each in content if isinstance(each, dict)] if isinstance(content, list) else []


def text_of(content: object) -> str:
    """The texts of a content, joined."""
    return "".join(_texts(content))


def _texts(content: object) -> Iterator[str]:
    for part in parts_of(content):
        if isinstance(part.get("text"), str):
            yield part["text"]


def data_url(media_type: object, data: object) -> str:
    """What is written as a URL of its own."""
    return f"data:{media_type};base64,{data}"


def source_of(url: str) -> Json:
    """Anthropic's source of what OpenAI has as ``url``."""
    if match := _DATA_URL.fullmatch(url):
        return {"type": "base64", "media_type": match[1], "data": match[2]}
    return {"type": "url", "url": url}


def an_object(value: object) -> Json:
    """``value`` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> list[Json]:
    """The objects in a list; none where there is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def arguments_of(text: object) -> Json:
    """What a call of a tool is given, as an object. Raises ``NotTranslatable``."""
    try:
        value = json.loads(text) if isinstance(text, str) and text.strip() else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise NotTranslatable("arguments of a tool that are no JSON object")
    return value


def without(asked: Mapping[str, Any], names: Collection[str]) -> Json:
    """All members but those of these names."""
    return {name: value for name, value in asked.items() if name not in names}


def copied(asked: Mapping[str, Any], *names: str) -> Json:
    """The members of these names, where they are and say something."""
    return {name: asked[name] for name in names if asked.get(name) is not None}
