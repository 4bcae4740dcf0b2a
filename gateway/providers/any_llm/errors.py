"""Where the SDK's world ends: its exceptions, and those of the dozen SDKs below it, become ours.

Told apart by the HTTP status wherever there is one, else by the names of classes, for these trees have no
root in common and most of them are not installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any

from pydantic import ValidationError

from ...translation.base import NotTranslatable
from ..errors import (
    ProviderError,
    ProviderFailed,
    ProviderMalformed,
    ProviderTimeout,
    ProviderUnreachable,
    refusal,
)
from ..redaction import error_message, retry_after

_NO_CONNECTION = re.compile(r"Connect(ion)?Timeout|ConnectError|EndpointConnection|ConnectionRefused")
_SILENCE = re.compile(r"Timeout")
_LOST = re.compile(
    r"Connection|ProtocolError|ReadError|WriteError|NetworkError|IncompleteRead|ClosedResource"
)
_MALFORMED = re.compile(r"ResponseValidation")
_STATUSES = {
    "RateLimitError": 429,
    "AuthenticationError": 401,
    "MissingApiKeyError": 401,
    "InsufficientFundsError": 402,
    "InvalidRequestError": 400,
    "ContentFilterError": 400,
    "ContextLengthExceededError": 400,
    "ModelNotFoundError": 404,
    "UpstreamProviderError": 502,
    "GatewayTimeoutError": 504,
}
"""What the SDK's own classes mean where the provider gave no status."""
_UNEXPECTED = re.compile(r"unexpected keyword argument '([A-Za-z_]{1,40})'")
_PARAMETERS = ("CompletionParams", "ResponsesParams")


def typed(error: Exception, api_key: str, lost: type[ProviderError] = ProviderUnreachable) -> ProviderError:
    """The error of ours that stands for ``error``; ``lost`` for a connection that ended too early."""
    if isinstance(error, ProviderError):
        return error
    chain = list(_chain(error))
    if (status := _status(chain)) is not None:
        return refusal(status, _said(chain, api_key), _retry_after(chain))
    return (
        _of_the_way(chain, lost)
        or _of_ours(chain)
        or _of_the_answer(chain)
        or _of_the_sdk(error, chain, api_key)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and what it was made of, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "original_exception", None) or error.__cause__


def _status(chain: list[BaseException]) -> int | None:
    """The HTTP status of a failure; Amazon's SDK has it in a place of its own."""
    for error in chain:
        response = getattr(error, "response", None)
        amazons = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        for status in (getattr(error, "status_code", None), amazons.get("HTTPStatusCode")):
            if isinstance(status, int) and 300 <= status < 600:
                return status
    return None


def _of_the_way(chain: list[BaseException], lost: type[ProviderError]) -> ProviderError | None:
    """Of the connection. Its text is not used: it names hosts that are no business of a client's."""
    names = " ".join(each.__name__ for error in chain for each in type(error).__mro__)
    if _NO_CONNECTION.search(names):
        return ProviderUnreachable("The provider could not be reached.")
    if _SILENCE.search(names.replace("GatewayTimeoutError", "")):
        return ProviderTimeout("The provider did not answer in time.")
    if _LOST.search(names):
        return lost("The provider closed the connection before its answer was complete.")
    return None


def _of_ours(chain: list[BaseException]) -> ProviderError | None:
    """Nothing was sent: the SDK has no way to put this to the provider."""
    for error in chain:
        name = type(error).__name__
        if name == "UnsupportedParameterError":
            return NotTranslatable(str(getattr(error, "parameter_name", ""))[:80])
        if isinstance(error, NotImplementedError):
            return NotTranslatable("this endpoint in this way")
        if isinstance(error, TypeError) and (found := _UNEXPECTED.search(str(error))):
            return NotTranslatable(f"the member {found[1]}")
        if isinstance(error, ValidationError) and error.title in _PARAMETERS:
            return NotTranslatable(f"this value of {_member(error)}")
    return None


def _member(error: ValidationError) -> str:
    place = error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"]
    return str(place[0])[:40] if place else "a member"


def _of_the_answer(chain: list[BaseException]) -> ProviderError | None:
    for error in chain:
        if isinstance(error, JSONDecodeError | ValidationError) or _MALFORMED.search(type(error).__name__):
            return ProviderMalformed("The provider's answer is not what its endpoint promises.")
    return None


def _of_the_sdk(error: Exception, chain: list[BaseException], api_key: str) -> ProviderError:
    """By the SDK's own judgement, which may be but a guess at words."""
    is_told = len(chain) > 1 or hasattr(error, "provider_name")
    if is_told and (status := _STATUSES.get(type(error).__name__)) is not None:
        return refusal(status, _said(chain, api_key), _retry_after(chain))
    if is_told and hasattr(chain[-1], "body"):
        return ProviderFailed("The provider answered with an error.", said=_said(chain, api_key))
    return ProviderFailed(f"The provider's SDK failed ({type(chain[-1]).__name__}).")


def _said(chain: list[BaseException], api_key: str) -> str:
    """What the provider says, redacted; as it said it, if the SDK has kept that."""
    for error in reversed(chain):
        if text := error_message(getattr(error, "body", None), api_key):
            return text
    return error_message({"message": str(chain[-1])}, api_key)


def _retry_after(chain: list[BaseException]) -> str | None:
    for error in chain:
        headers: Any = getattr(getattr(error, "response", None), "headers", None)
        value = getattr(error, "retry_after", None) or (headers.get("retry-after") if headers else None)
        if isinstance(value, str):
            return retry_after(value)
    return None
