"""What exceptions of the any-llm SDK, and of the SDKs below it, mean: by their shapes, as none is there."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gateway.providers.any_llm.errors import typed
from gateway.providers.errors import (
    ProviderError,
    ProviderFailed,
    ProviderMalformed,
    ProviderRejected,
    ProviderStreamCut,
    ProviderTimeout,
    ProviderUnreachable,
)
from gateway.translation.base import NotTranslatable

KEY = "sk-of-the-provider"


def of(name: str, text: str = "", *bases: type[Exception], **members: Any) -> Exception:
    """An exception of a class called ``name``."""
    error = type(name, bases or (Exception,), {})(text)
    vars(error).update(members)
    return error


def told(name: str, original: Exception | None = None, **members: Any) -> Exception:
    """An exception of any-llm's."""
    return of(name, str(original or ""), provider_name="p", original_exception=original, **members)


class CompletionParams(BaseModel):
    temperature: float


class ChatCompletion(BaseModel):
    id: str


def invalid(model: type[BaseModel], **members: Any) -> Exception:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(members)
    return caught.value


AMAZONS = {"ResponseMetadata": {"HTTPStatusCode": 429}, "Error": {"Code": "ThrottlingException"}}


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (told("RateLimitError", status_code=429), ProviderRejected, 429),
        (told("InvalidRequestError", status_code=400), ProviderRejected, 400),
        (told("AuthenticationError", status_code=403), ProviderFailed, 502),
        (told("ProviderError", status_code=500), ProviderFailed, 502),
        (told("ProviderError", of("ClientError", response=AMAZONS)), ProviderRejected, 429),
        (told("RateLimitError"), ProviderRejected, 429),
        (told("ModelNotFoundError"), ProviderRejected, 404),
        (told("AuthenticationError", of("NoCredentialsError")), ProviderFailed, 502),
        (told("ProviderError", of("ReadTimeoutError")), ProviderTimeout, 504),
        (TimeoutError(), ProviderTimeout, 504),
        (told("ProviderError", of("ConnectTimeout", "", TimeoutError)), ProviderUnreachable, 502),
        (told("ProviderError", of("EndpointConnectionError")), ProviderUnreachable, 502),
        (told("ProviderError", of("ConnectError")), ProviderUnreachable, 502),
        (told("ProviderError", of("ResponseValidationError")), ProviderMalformed, 502),
        (invalid(ChatCompletion), ProviderMalformed, 502),
        (told("ProviderError", KeyError("content")), ProviderFailed, 502),
        (told("UnsupportedParameterError", parameter_name="n"), NotTranslatable, 400),
        (NotImplementedError("Provider doesn't support embedding."), NotTranslatable, 400),
        (invalid(CompletionParams, temperature="hot"), NotTranslatable, 400),
        (
            told("InvalidRequestError", TypeError("f() got an unexpected keyword argument 'seed'")),
            NotTranslatable,
            400,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_it_becomes_one_of_ours(error: Exception, kind: type[ProviderError], status: int) -> None:
    became = typed(error, KEY)

    assert (type(became), became.status) == (kind, status)
    assert became.was_asked is not isinstance(became, NotTranslatable)


def test_one_of_ours_stays_what_it_is() -> None:
    error = ProviderMalformed("no")

    assert typed(error, KEY) is error


def test_a_connection_lost_in_a_stream_is_a_stream_that_was_cut() -> None:
    error = told("ProviderError", of("RemoteProtocolError", "http://inner.host"))

    became = typed(error, KEY, lost=ProviderStreamCut)

    assert isinstance(became, ProviderStreamCut)
    assert "inner.host" not in became.message


def test_what_the_provider_says_is_told_without_its_key_and_kept_out_of_the_row() -> None:
    body = {"error": {"message": f"{KEY} cannot say swordfish"}}
    error = told("InvalidRequestError", of("BadRequestError", str(body), body=body), status_code=400)

    became = typed(error, KEY)

    assert became.message == "[redacted] cannot say swordfish"
    assert became.summary == "The provider refused the call (400)."


def test_what_it_says_of_our_credentials_is_not_told() -> None:
    error = told("AuthenticationError", of("E", "bad key", body={"message": "bad key"}), status_code=401)

    assert "bad key" not in typed(error, KEY).message


@pytest.mark.parametrize(("said", "kept"), [("7", "7"), ("soon", None), (None, None)])
def test_the_rest_that_a_provider_wants_is_kept(said: str | None, kept: str | None) -> None:
    error = told("RateLimitError", status_code=429, retry_after=said)

    assert typed(error, KEY).headers.get("Retry-After") == kept


def test_a_mistaken_value_is_named_and_not_shown() -> None:
    became = typed(invalid(CompletionParams, temperature="swordfish"), KEY)

    assert "temperature" in became.message and "swordfish" not in became.message + became.summary
