"""Every way in which a provider fails a call. Callers branch on the class, never on the text.

``status`` and ``code`` are what our client gets, and ``message``: what the provider said, redacted and short.
``summary`` is for the row, in words of ours alone: a provider may quote the prompt, and no prompt is stored.
``headers`` holds Retry-After or nothing. ``provider_status``: the HTTP status that the provider refused the
call with, None where it failed in another way. ``was_asked``: false where the call cannot even be put to it.
"""

from __future__ import annotations

from typing import Literal

MAX_MESSAGE = 400
"""Characters of ``ProviderError.message``."""


class ProviderError(Exception):
    """The root of this tree."""

    status: int = 502
    code: str
    end_reason: Literal["provider_error", "timeout"] = "provider_error"
    provider_status: int | None = None
    was_asked: bool = True

    def __init__(self, summary: str, retry_after: str | None = None, *, said: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.message = (said or summary)[:MAX_MESSAGE]
        self.headers: dict[str, str] = {} if retry_after is None else {"Retry-After": retry_after}


class ProviderRejected(ProviderError):
    """The provider refused this call: its 400, 404, 422 or 429, passed on."""

    def __init__(self, status: int, summary: str, retry_after: str | None = None, *, said: str = "") -> None:
        super().__init__(summary, retry_after, said=said)
        self.status = self.provider_status = status
        self.code = REJECTION_CODES[status]


class ProviderFailed(ProviderError):
    """The provider's 401, 403, 5xx, or a status that no client of ours can act on; or an error in its answer,
    whatever the status."""

    code = "provider_error"

    def __init__(
        self,
        summary: str,
        retry_after: str | None = None,
        *,
        said: str = "",
        provider_status: int | None = None,
    ) -> None:
        super().__init__(summary, retry_after, said=said)
        self.provider_status = provider_status


class ProviderUnreachable(ProviderError):
    """No connection, or it was lost before the answer was complete. The provider may have begun."""

    code = "provider_unreachable"


class ProviderTimeout(ProviderError):
    """The provider was silent for longer than its ``timeout_s``."""

    status = 504
    code = "provider_timeout"
    end_reason = "timeout"


class ProviderMalformed(ProviderError):
    """An answer that is not what its endpoint promises."""

    code = "provider_malformed"


class ProviderStreamCut(ProviderError):
    """The stream ended before its last event."""

    code = "provider_stream_cut"


REJECTION_CODES = {
    400: "provider_bad_request",
    404: "provider_not_found",
    422: "provider_unprocessable",
    429: "provider_rate_limited",
}
"""The statuses that are passed on to the client."""


def refusal(status: int, text: str, retry_after: str | None) -> ProviderError:
    """What an HTTP ``status`` other than 2xx means, of which the provider said ``text``, redacted."""
    if status in REJECTION_CODES:
        return ProviderRejected(status, f"The provider refused the call ({status}).", retry_after, said=text)
    if status in (401, 403):  # what it says of our own credentials is the operator's business
        summary = f"The provider refused the gateway's credentials ({status})."
        return ProviderFailed(summary, retry_after, provider_status=status)
    summary = f"The provider failed ({status})."
    return ProviderFailed(summary, retry_after, said=text, provider_status=status)
