"""A provider that is asked in a format which is not its own.

What it has itself goes to it as it comes; the rest is translated on the way there and on the way back. The
counts are those that the provider gave, read before anything is translated.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from ..providers.base import Answer, Event, EventStream, Payload, Provider
from ..providers.stream import EVENTS
from .base import EventTranslation, Json, NotTranslatable, Translation
from .chat_answer import ChatEvents, chat_answer
from .chat_request import messages_request
from .messages_answer import MessageEvents, message_answer
from .messages_request import chat_request

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"


class ChatByMessages:
    """See ``Translation``."""

    endpoint = MESSAGES
    request = staticmethod(messages_request)
    answer = staticmethod(chat_answer)
    stream = ChatEvents


class MessagesByChat:
    """See ``Translation``."""

    endpoint = CHAT
    request = staticmethod(chat_request)
    answer = staticmethod(message_answer)
    stream = MessageEvents


TRANSLATIONS: Mapping[str, Translation] = {CHAT: ChatByMessages(), MESSAGES: MessagesByChat()}
"""By the client's endpoint."""


class TranslatingProvider:
    """See ``Provider``."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    @property
    def name(self) -> str:
        """See ``Provider.name``."""
        return self._provider.name

    def offers(self, endpoint: str) -> bool:
        """See ``Provider.offers``."""
        return self._provider.offers(endpoint) or self._translation(endpoint) is not None

    def send(
        self, endpoint: str, payload: Payload, request_id: str | None = None
    ) -> Coroutine[Any, Any, Answer]:
        """See ``Provider.send``."""
        translation = self._translation(endpoint)
        if translation is None:
            return self._provider.send(endpoint, payload, request_id)
        return self._send_translated(translation, payload, request_id)

    async def _send_translated(
        self, translation: Translation, payload: Payload, request_id: str | None
    ) -> Answer:
        asked = _translated(translation, payload)
        answer = await self._provider.send(translation.endpoint, asked, request_id)
        told = translation.answer(json.loads(answer.body), answer.usage)
        return replace(answer, body=_bytes(told))

    @asynccontextmanager
    async def stream(
        self, endpoint: str, payload: Payload, request_id: str | None = None
    ) -> AsyncIterator[EventStream]:
        """See ``Provider.stream``."""
        translation = self._translation(endpoint)
        if translation is None:
            async with self._provider.stream(endpoint, payload, request_id) as stream:
                yield stream
            return
        asked = _translated(translation, payload)
        async with self._provider.stream(translation.endpoint, asked, request_id) as stream:
            yield TranslatedStream(stream, translation.stream())

    def _translation(self, endpoint: str) -> Translation | None:
        if self._provider.offers(endpoint):
            return None
        translation = TRANSLATIONS.get(endpoint)
        return translation if translation and self._provider.offers(translation.endpoint) else None


class TranslatedStream:
    """See ``EventStream``."""

    content_type = EVENTS

    def __init__(self, stream: EventStream, translation: EventTranslation) -> None:
        self._stream = stream
        self._translation = translation

    def __aiter__(self) -> TranslatedStream:
        return self

    async def __anext__(self) -> list[Event]:
        while True:
            given = await anext(self._stream)
            if told := [event for each in given for event in self._translation.events(each)]:
                return told


def _translated(translation: Translation, payload: Payload) -> Payload:
    """The headers that only the client's format knows stay behind. Raises ``NotTranslatable``."""
    try:
        return Payload(_bytes(translation.request(json.loads(payload.body))))
    except RecursionError:
        raise NotTranslatable("a body that is nested so deeply") from None


def _bytes(value: Json) -> bytes:
    return json.dumps(value).encode()
