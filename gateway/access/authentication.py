"""Who calls: the key in the headers becomes a principal, or the call is refused.

Takes headers; asks the store at most once in ``cache_s`` seconds for each key and user. A change made
through this process is seen at once (``forget_key``, ``forget_user``), one made elsewhere within
``cache_s``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

from backends import KeyHolder, Store, User

from ..errors import Forbidden, NotFound, Unauthorized
from .cache import Cache
from .last_used import LastUsed
from .master_key import MasterKey
from .principal import MASTER, Principal
from .secrets import hash_of
from .store_health import StoreHealth

CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


def utc_now() -> datetime:
    """The time, as the store has it."""
    return datetime.now(UTC)


class Access:
    """The door. ``now`` is the time that expiry is judged by, ``clock`` the seconds that answers age by."""

    def __init__(
        self,
        store: Store,
        master: MasterKey,
        *,
        cache_s: float,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.master = master
        self.health = StoreHealth(store)
        self.last_used = LastUsed(store)
        self._now = now
        find_user = partial(store.get, User)
        self._keys = Cache(self.health.watched(store.find_key), cache_s, clock=clock)
        self._users = Cache(self.health.watched(find_user), cache_s, clock=clock)

    async def identify(self, headers: Mapping[str, str]) -> Principal:
        """The principal whose key ``headers`` carry (names are looked up as the mapping does, so give one
        that ignores case). Raises ``Unauthorized``, ``Forbidden`` for a user who may not call, and
        ``StoreUnavailable``: nothing is known of the key."""
        presented = presented_key(headers)
        if not presented:
            raise _unauthorized(
                "Send your key as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'.", "missing_api_key"
            )
        secret_hash = hash_of(presented)
        if self.master.has_hash(secret_hash):
            return MASTER
        holder = await self._keys.get(secret_hash)
        if holder is None:
            return self._master_after_all(secret_hash)
        now = self._now()
        _check_key(holder, secret_hash, now)
        _check_user(holder.user)
        self.last_used.touch(holder.key.id, now)
        return Principal(is_master=False, key=holder.key, user=holder.user)

    def _master_after_all(self, secret_hash: str) -> Principal:
        """The master, whose key may have become known while the store was asked for it. Raises as
        ``identify`` does for a key that is nobody's."""
        self.master.require_known()
        if self.master.has_hash(secret_hash):
            return MASTER
        raise _unauthorized("This key is not known here.", "invalid_api_key")

    async def spender(self, principal: Principal, named: str | None) -> User | None:
        """Who pays for a call whose body names the user ``named``: the key's user, or for the master whoever
        is named. Raises ``Forbidden``, ``NotFound`` and ``StoreUnavailable``."""
        if principal.user is not None:
            if named not in (None, principal.user.id):
                raise Forbidden("This key is another user's than the body names.", "user_mismatch", "user")
            return principal.user
        if named is None:
            return None
        user = await self._users.get(named) if _is_storable(named) else None
        if user is None or user.deleted_at is not None:
            raise NotFound(
                "There is no user of this id. Make it with POST /v1/users, or leave user out.",
                "user_not_found",
                "user",
            )
        _check_user(user)
        return user

    def forget_key(self, id: str) -> None:
        """The key was changed: its next call sees that."""
        self._keys.forget_where(lambda holder: holder.key.id == id)

    def forget_user(self, id: str) -> None:
        """The user was made, changed or deleted: the next call of any of the user's keys sees that."""
        self._users.forget(id)
        self._keys.forget_where(lambda holder: holder.user.id == id)

    async def close(self) -> None:
        """End the questions that nobody waits for any longer."""
        await self._keys.close()
        await self._users.close()


def presented_key(headers: Mapping[str, str]) -> str:
    """The key in ``Authorization: Bearer``, else the one in ``x-api-key``, else an empty text."""
    scheme, _, bearer = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip()
    return headers.get("x-api-key", "").strip()


def _check_key(holder: KeyHolder, secret_hash: str, now: datetime) -> None:
    key = holder.key
    if key.revoked_at is not None and key.revoked_at <= now:
        raise _unauthorized("This key was revoked.", "revoked_api_key")
    if key.expires_at is not None and key.expires_at <= now:
        raise _unauthorized("This key has expired.", "expired_api_key")
    is_previous = secret_hash != key.secret_hash
    if is_previous and (key.previous_expires_at is None or key.previous_expires_at <= now):
        raise _unauthorized("This key was rotated; use its new secret.", "expired_api_key")


def _check_user(user: User) -> None:
    if user.deleted_at is not None:
        raise Forbidden("The user of this key was deleted.", "user_deleted")
    if user.blocked:
        raise Forbidden("This user is blocked.", "user_blocked")


def _is_storable(name: str) -> bool:
    """Whether every database can be asked for ``name``: JSON may hold halves of characters, and NUL."""
    return "\0" not in name and not any("\ud800" <= each <= "\udfff" for each in name)


def _unauthorized(message: str, code: str) -> Unauthorized:
    return Unauthorized(message, code, headers=CHALLENGE)
