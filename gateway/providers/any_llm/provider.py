"""One provider of the SDK's, asked in OpenAI's format."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from ...formats import format_at
from ...translation.base import NotTranslatable
from ..base import Answer, EventStream, Payload
from ..errors import ProviderError
from .asked import METHODS, Arguments
from .errors import typed
from .stream import SdkStream
from .threads import BLOCKING, driven, in_thread
from .told import answer_of

_JSON = "application/json"
_CLOSING_S = 0.5


class AnyLlmProvider:
    """See ``Provider``. ``sdk`` is the SDK's own provider; ``timeout_s`` bounds a plain call as a whole, the
    head of a stream, and each silence within."""

    def __init__(self, name: str, sdk: Any, *, api_key: str, timeout_s: float) -> None:
        self.name = name
        self._sdk = sdk
        self._api_key = "" if api_key == "none" else api_key
        self._timeout_s = timeout_s
        self._is_openai = any(each.__name__ == "BaseOpenAIProvider" for each in type(sdk).__mro__)
        self._is_blocking = sdk.PROVIDER_NAME in BLOCKING

    def offers(self, endpoint: str) -> bool:
        """See ``Provider.offers``."""
        return endpoint in METHODS and bool(getattr(self._sdk, METHODS[endpoint][1], False))

    async def send(self, endpoint: str, payload: Payload, request_id: str | None = None) -> Answer:
        """See ``Provider.send``."""
        try:
            told = answer_of(endpoint, await self._asked(endpoint, payload, request_id))
        except Exception as error:
            raise self._typed(error) from error
        format = format_at(endpoint)
        return Answer(200, json.dumps(told).encode(), _JSON, format.usage(told), has_text=format.has_text)

    @asynccontextmanager
    async def stream(
        self, endpoint: str, payload: Payload, request_id: str | None = None
    ) -> AsyncIterator[EventStream]:
        """See ``Provider.stream``."""
        try:
            chunks = await self._asked(endpoint, payload, request_id)
        except Exception as error:
            raise self._typed(error) from error
        stream = SdkStream(endpoint, chunks, self._step, api_key=self._api_key, timeout_s=self._timeout_s)
        try:
            if not self._is_openai:
                await stream.begin()
            yield stream
        finally:
            await stream.close()

    async def close(self) -> None:
        """Close what the SDK keeps open. Raises nothing."""
        close = getattr(getattr(self._sdk, "client", None), "close", None)
        with suppress(Exception):
            async with asyncio.timeout(_CLOSING_S):
                if close is not None and inspect.isawaitable(closing := close()):
                    await closing

    async def _asked(self, endpoint: str, payload: Payload, request_id: str | None) -> Any:
        method = getattr(self._sdk, METHODS[endpoint][0])
        arguments = self._arguments(endpoint, payload, request_id)
        async with asyncio.timeout(self._timeout_s):
            if self._is_blocking:
                return await in_thread(lambda: asyncio.run(method(**arguments)))
            return await method(**arguments)

    def _arguments(self, endpoint: str, payload: Payload, request_id: str | None) -> Arguments:
        try:
            body = json.loads(payload.body)
        except RecursionError:
            raise NotTranslatable("a body that is nested so deeply") from None
        arguments = METHODS[endpoint][2](body, self._is_openai)
        if self._is_openai and request_id is not None:
            arguments["extra_headers"] = {"x-request-id": request_id}
        if self._sdk.TIMEOUT_SUPPORT != "unsupported" and endpoint != "/v1/embeddings":
            arguments["timeout"] = self._timeout_s
        return arguments

    async def _step(self, step: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return await (in_thread(lambda: driven(step())) if self._is_blocking else step())

    def _typed(self, error: Exception) -> ProviderError:
        return typed(error, self._api_key)
