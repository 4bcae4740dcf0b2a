"""All configured providers over one pool of kept connections.

Takes the ``providers`` of the settings; gives open providers by name, and closes their connections.
Opening does no network I/O: the gateway starts with every provider down.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import aiohttp

from ..sections import ANY_LLM
from ..translation.provider import TranslatingProvider
from .anthropic import AnthropicProvider
from .any_llm.opening import open_sdk
from .any_llm.provider import AnyLlmProvider
from .base import Provider
from .openai import OpenAiProvider

if TYPE_CHECKING:
    from ..settings import ProviderSettings

_KEEP_ALIVE_S = 15.0
_CLASSES: Mapping[str, type[OpenAiProvider]] = {"openai": OpenAiProvider, "anthropic": AnthropicProvider}
"""By the type in the settings."""


@asynccontextmanager
async def open_providers(entries: Mapping[str, ProviderSettings]) -> AsyncIterator[Mapping[str, Provider]]:
    """The providers, usable inside. Leaving closes every connection, also of calls under way."""
    async with _open_session() as session, AsyncExitStack() as stack:
        yield {
            name: TranslatingProvider(
                _open_by_sdk(name, entry, stack) if entry.type == ANY_LLM else _open(name, entry, session)
            )
            for name, entry in entries.items()
        }


def _open_by_sdk(name: str, entry: ProviderSettings, stack: AsyncExitStack) -> Provider:
    key = entry.api_key.get_secret_value()
    provider = AnyLlmProvider(name, open_sdk(name, entry), api_key=key, timeout_s=entry.timeout_s)
    stack.push_async_callback(provider.close)
    return provider


def _open(name: str, entry: ProviderSettings, session: aiohttp.ClientSession) -> Provider:
    return _CLASSES[entry.type](
        name,
        session,
        base_url=str(entry.base_url),
        api_key=entry.api_key.get_secret_value(),
        timeout_s=entry.timeout_s,
    )


def _open_session() -> aiohttp.ClientSession:
    # No limit here: calls are bounded by their places, and one that has its place must not wait in a
    # second queue. No cookies and no proxy from the environment: a call depends on its settings alone.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"tallygate/{_version()}"},
    )


def _version() -> str:
    try:
        return version("tallygate")
    except PackageNotFoundError:  # run from a checkout
        return "dev"
