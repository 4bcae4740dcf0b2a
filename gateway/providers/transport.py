"""Where aiohttp's world ends: its exceptions become ours, and no body is read without a bound."""

from __future__ import annotations

import aiohttp

from .errors import ProviderError, ProviderMalformed, ProviderTimeout, ProviderUnreachable

TRANSPORT_ERRORS = (aiohttp.ClientError, OSError)
"""What a request or a read may raise; TimeoutError is an OSError."""


def typed(error: Exception, lost: type[ProviderError] = ProviderUnreachable) -> ProviderError:
    """The error of ours that stands for ``error``; ``lost`` for a connection that ended too early.

    Its text is not used: it names hosts and addresses that are no business of a client's.
    """
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return ProviderUnreachable("The provider could not be reached.")
    if isinstance(error, TimeoutError):
        return ProviderTimeout("The provider did not answer in time.")
    if isinstance(error, aiohttp.ClientResponseError):
        return ProviderMalformed("The provider did not answer in HTTP.")
    return lost("The provider closed the connection before its answer was complete.")


async def read_at_most(content: aiohttp.StreamReader, limit: int) -> bytes | None:
    """The whole body, or None when it is longer than ``limit`` bytes. Raises ``TRANSPORT_ERRORS``."""
    chunks: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
        if content.at_eof():  # mostly all of it comes at once: the end need not be read apart
            break
    return b"".join(chunks)
