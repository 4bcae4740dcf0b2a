"""Every refusal of the gateway's own, and its one shape on the wire. Knows no request and logs nothing.

Raise a class from here anywhere in the gateway; the error middleware alone turns it into a response.
``code`` is stable and documented; ``message`` is for people and carries no secret and no prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INTERNAL_MESSAGE = "The gateway failed; the request id names this call in its log."


class GatewayError(Exception):
    """The root. ``status``, ``code`` and ``type`` are the class's own unless the caller says otherwise."""

    status = 500
    code = "internal_error"
    type = "api_error"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        param: str | None = None,
        *,
        status: int | None = None,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.code if code is None else code
        self.param = param
        self.status = self.status if status is None else status
        self.type = self.type if type is None else type
        self.headers = dict(headers or {})


class BadRequest(GatewayError):
    """The caller has to send something else; ``param`` names what was wrong."""

    status = 400
    code = "bad_request"
    type = "invalid_request_error"


class Unauthorized(GatewayError):
    """No key, or not the right one."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"


class PaymentRequired(GatewayError):
    """The call costs more than there is, or nobody knows what it costs."""

    status = 402
    code = "payment_required"
    type = "invalid_request_error"


class Forbidden(GatewayError):
    """The key is good, but not for this."""

    status = 403
    code = "forbidden"
    type = "permission_error"


class NotFound(GatewayError):
    """There is nothing of this name."""

    status = 404
    code = "not_found"
    type = "not_found_error"


class Conflict(GatewayError):
    """What was asked contradicts what is there."""

    status = 409
    code = "conflict"
    type = "invalid_request_error"


class PayloadTooLarge(GatewayError):
    """The body is over the gateway's limit."""

    status = 413
    code = "request_too_large"
    type = "invalid_request_error"


class UnsupportedMediaType(GatewayError):
    """The body is not of a content type that this endpoint takes."""

    status = 415
    code = "unsupported_media_type"
    type = "invalid_request_error"


class UnprocessableEntity(GatewayError):
    """The body is JSON, but not what this endpoint takes; ``param`` names the member."""

    status = 422
    code = "invalid_request"
    type = "invalid_request_error"


class RateLimited(GatewayError):
    """Too many calls or tokens within a minute."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"


class InternalError(GatewayError):
    """A bug of ours. The message says nothing about it; the log does."""

    def __init__(self, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(INTERNAL_MESSAGE, headers=headers)


class NotOffered(GatewayError):
    """This gateway, as it is configured, cannot do that at all."""

    status = 501
    code = "not_implemented"


class ServiceUnavailable(GatewayError):
    """Not now; the same request may succeed later."""

    status = 503
    code = "service_unavailable"
    type = "service_unavailable"


class StoreDown(ServiceUnavailable):
    """The store does not answer, so nobody knows whether the caller may. Raised by no one but the error
    middleware, for every ``StoreUnavailable`` that reaches it."""

    code = "store_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The database of keys, users and budgets does not answer. Try again shortly.",
            headers={"Retry-After": "1"},
        )


def error_body(message: str, type: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """The OpenAI shape of an error, as a dict of JSON values."""
    return {"error": {"message": message, "type": type, "code": code, "param": param}}


def error_type(status: int) -> str:
    """The ``type`` that goes with an HTTP status, for errors that come without a class from here."""
    by_status = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
    by_status |= {429: "rate_limit_error", 503: "service_unavailable"}
    return by_status.get(status, "invalid_request_error" if status < 500 else "api_error")
