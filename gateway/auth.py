"""Who calls: the key in the headers becomes a principal, or the call is refused. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import Forbidden, Unauthorized

CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller. The master key may do everything and has no ``api_key_id``."""

    is_master: bool
    api_key_id: str | None = None
    user_id: str | None = None


def authenticate(headers: Mapping[str, str], master_key: str) -> Principal:
    """The principal whose key ``headers`` carry (names are looked up as the mapping does, so give one that
    ignores case). Raises ``Unauthorized`` with code ``missing_api_key`` or ``invalid_api_key``."""
    presented = presented_key(headers)
    if not presented:
        raise Unauthorized(
            "Send your key as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'.",
            "missing_api_key",
            headers=CHALLENGE,
        )
    if not _is_same(presented, master_key):
        raise Unauthorized("This key is not known here.", "invalid_api_key", headers=CHALLENGE)
    return Principal(is_master=True)


def presented_key(headers: Mapping[str, str]) -> str:
    """The key in ``Authorization: Bearer``, else the one in ``x-api-key``, else an empty text."""
    scheme, _, bearer = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip()
    return headers.get("x-api-key", "").strip()


def require_master(principal: Principal) -> None:
    """Return if ``principal`` may manage the gateway. Raises ``Forbidden``."""
    if not principal.is_master:
        raise Forbidden("This needs the master key.", "master_key_required")


def _is_same(presented: str, expected: str) -> bool:
    # As bytes: header bytes that are no UTF-8 arrive as lone surrogates, which a comparison of texts refuses.
    return hmac.compare_digest(
        presented.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    )
