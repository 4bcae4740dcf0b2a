"""Providers that speak the OpenAI HTTP API, whoever runs them.

Takes a body and the path of an endpoint; gives the provider's bytes and the counts in them. One POST per
call: no retry, no redirect. aiohttp repeats only idempotent methods when a kept connection turns out to
be stale, so a POST that may have been paid for never goes out twice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from typing import Any, ClassVar

import aiohttp
import msgspec

from ..formats import OPENAI_PATHS, Format, format_at
from .base import Answer, EventStream, Payload
from .errors import ProviderError, ProviderFailed, ProviderMalformed, refusal
from .redaction import message_in_body, retry_after
from .stream import OneAnswer, PieceStream, SseStream
from .transport import TRANSPORT_ERRORS, read_at_most, typed

MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_SMALL_BODY_BYTES = 64 * 1024
_CONNECT_S = 10.0
_JSON = "application/json"
_EVENTS = "text/event-stream"
_BYTES = "application/octet-stream"
_PAGES = ("text/html", "application/xhtml+xml")
"""What no endpoint answers, and many a proxy before one."""


class OpenAiProvider:
    """See ``Provider``. ``timeout_s`` bounds a plain call as a whole, and each silence within a stream."""

    endpoints: ClassVar[frozenset[str]] = OPENAI_PATHS

    def __init__(
        self, name: str, session: aiohttp.ClientSession, *, base_url: str, api_key: str, timeout_s: float
    ) -> None:
        self.name = name
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._api_key = "" if api_key == "none" else api_key
        self._plain_timeout = aiohttp.ClientTimeout(total=timeout_s, connect=_CONNECT_S)
        self._stream_timeout = aiohttp.ClientTimeout(connect=_CONNECT_S, sock_read=timeout_s)

    def offers(self, endpoint: str) -> bool:
        """See ``Provider.offers``."""
        return endpoint in self.endpoints

    async def send(self, endpoint: str, payload: Payload, request_id: str | None = None) -> Answer:
        """See ``Provider.send``."""
        headers = self._headers(_JSON, payload, request_id)
        try:
            async with await self._post(endpoint, payload, headers, self._plain_timeout) as response:
                if not 200 <= response.status < 300:
                    raise await self._refusal(response)
                return await self._answer(response, format_at(endpoint))
        except TRANSPORT_ERRORS as error:
            raise typed(error) from error

    @asynccontextmanager
    async def stream(
        self, endpoint: str, payload: Payload, request_id: str | None = None
    ) -> AsyncIterator[EventStream]:
        """See ``Provider.stream``."""
        # Compression would hold events back.
        headers = self._headers(_EVENTS, payload, request_id) | {"Accept-Encoding": "identity"}
        try:
            response = await self._post(endpoint, payload, headers, self._stream_timeout)
        except TRANSPORT_ERRORS as error:
            raise typed(error) from error
        async with response:
            if not 200 <= response.status < 300:
                raise await self._refusal(response)
            stream = await self._stream_of(response, format_at(endpoint))
            yield stream
            if isinstance(stream, SseStream):
                await stream.finish()

    async def _stream_of(self, response: aiohttp.ClientResponse, format: Format) -> EventStream:
        if response.content_type == _EVENTS:
            return SseStream(response.content, format, self._api_key)
        if format.is_stream_sure or response.content_type in _PAGES:
            raise ProviderMalformed("The provider answered with something else than a stream of events.")
        if "json" not in response.content_type:
            return PieceStream(response.content, response.headers.get("Content-Type", _BYTES))
        try:
            return OneAnswer(await self._answer(response, format))
        except TRANSPORT_ERRORS as error:
            raise typed(error) from error

    def _post(
        self, endpoint: str, payload: Payload, headers: dict[str, str], timeout: aiohttp.ClientTimeout
    ) -> Awaitable[aiohttp.ClientResponse]:
        # BytesIO shares the bytes and goes out in pieces, so that a large body does not hold up the loop; a
        # small one goes out with its head, which costs less.
        body = payload.body
        return self._session.post(
            self._url(endpoint),
            data=body if len(body) <= _SMALL_BODY_BYTES else BytesIO(body),
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
        )

    def _url(self, endpoint: str) -> str:
        """``base_url`` stands for the ``/v1`` of our own paths."""
        return self._base_url + endpoint.removeprefix("/v1")

    def _headers(self, accept: str, payload: Payload, request_id: str | None) -> dict[str, str]:
        headers = {"Content-Type": _JSON, "Accept": accept, **payload.headers, **self._credentials()}
        if request_id is not None:
            headers["x-request-id"] = request_id
        return headers

    def _credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}

    async def _refusal(self, response: aiohttp.ClientResponse) -> ProviderError:
        """What a status other than 2xx means."""
        body = None
        with suppress(*TRANSPORT_ERRORS):  # the status is known, whatever becomes of the text
            body = await read_at_most(response.content, _MAX_ERROR_BYTES)
        text = message_in_body(body or b"", self._api_key)
        return refusal(response.status, text, retry_after(response.headers.get("Retry-After")))

    async def _answer(self, response: aiohttp.ClientResponse, format: Format) -> Answer:
        content_type = response.headers.get("Content-Type", _JSON)
        is_json = content_type == _JSON or "json" in response.content_type
        if not is_json and (format.is_json or response.content_type in _PAGES):
            raise ProviderMalformed("The provider answered with something else than JSON.")
        body = await read_at_most(response.content, MAX_ANSWER_BYTES)
        if body is None:
            raise ProviderMalformed("The provider's answer is too large.")
        if not is_json:
            return Answer(response.status, body, content_type, None, has_text=False)
        payload = _object_in(body)
        if (failure := format.failure(payload, self._api_key)) is not None:
            raise ProviderFailed("The provider answered with an error.", said=failure)
        return Answer(
            response.status, body, _JSON, format.usage(payload), format.images(payload), format.has_text
        )


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        payload = _decoded(body)
    except (ValueError, RecursionError):
        raise ProviderMalformed("The provider's answer is not valid JSON.") from None
    if not isinstance(payload, dict):
        raise ProviderMalformed("The provider's answer is not a JSON object.")
    return payload


def _decoded(body: bytes) -> Any:
    """The JSON value in ``body``. Raises ``ValueError`` and ``RecursionError``. The first parser is several
    times as fast; what it refuses, as numbers that are none, the standard library's may read."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return json.loads(body)
