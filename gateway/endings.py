"""The ways in which a call ends, as the row tells them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backends import EndReason, Status

from .errors import GatewayError
from .providers.errors import ProviderError

CLIENT_HAD_GONE = 499
"""The status of a call whose client left: whatever was sent, nobody read it to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended. ``status_code`` is the HTTP status sent, 499 when the client had gone, None when
    nobody lived to send one."""

    status: Status
    end_reason: EndReason
    status_code: int | None
    error_code: str | None = None
    error_message: str | None = None

    def unheard(self) -> Ending:
        """The same end, when the client had gone before it."""
        return replace(self, status_code=CLIENT_HAD_GONE)


COMPLETE = Ending(status="success", end_reason="complete", status_code=200)
CLIENT_LEFT = Ending(status="cancelled", end_reason="client_disconnect", status_code=CLIENT_HAD_GONE)
SHUTDOWN = Ending(status="cancelled", end_reason="shutdown", status_code=503, error_code="shutting_down")
CRASH = Ending(status="cancelled", end_reason="crash", status_code=None)
BUG = Ending(status="error", end_reason="internal_error", status_code=500, error_code="internal_error")


def completed(status_code: int) -> Ending:
    """The provider's whole answer was given, with this HTTP status."""
    return COMPLETE if status_code == COMPLETE.status_code else replace(COMPLETE, status_code=status_code)


def rejected_ending(error: GatewayError) -> Ending:
    """How a call ended that was not made, by its price or its budget."""
    return Ending(
        status="rejected",
        end_reason="rejected",
        status_code=error.status,
        error_code=error.code,
        error_message=error.message,
    )


def provider_ending(error: ProviderError) -> Ending:
    """How a call ended that its provider failed."""
    return Ending(
        status="error",
        end_reason=error.end_reason,
        status_code=error.status,
        error_code=error.code,
        error_message=error.summary,
    )
