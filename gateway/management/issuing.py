"""Keys made, revoked and turned, and the users that they belong to: the same over HTTP and from a shell.

Takes checked requests and a store; gives records, and secrets, which are kept nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from uuid_utils.compat import uuid7

from backends import ApiKey, Store, User, to_millisecond

from ..access.secrets import hash_of, hint_of, make_key
from ..errors import Conflict, NotFound, UnprocessableEntity
from .requests import KeyChange, KeyCreate, KeyRotate

OWN_USER = "apikey-"
"""What the id of a user begins with that was made for one key; the key's id follows."""


async def create_key(store: Store, asked: KeyCreate) -> tuple[ApiKey, str]:
    """A new key and its secret. Raises ``UnprocessableEntity`` for a user who is not there."""
    secret, id = make_key(), str(uuid7())
    key = ApiKey(
        id=id,
        secret_hash=hash_of(secret),
        hint=hint_of(secret),
        created_at=now(),
        **_fields(dict(asked) | {"user_id": asked.user_id or f"{OWN_USER}{id}"}),
    )
    if asked.user_id is None:
        await _make_own_user(store, key)
    else:
        await check_user(store, asked.user_id)
    await store.add(key)
    return key, secret


async def find_key(store: Store, id: str) -> ApiKey:
    """The key with this id. Raises ``NotFound``."""
    return _found(await store.get(ApiKey, id))


async def change_key(store: Store, id: str, asked: KeyChange) -> ApiKey:
    """The key as it is then. Raises ``NotFound``; ``UnprocessableEntity`` for a user who is not there."""
    key, changes = await find_key(store, id), _fields(asked.given())
    if changes.get("user_id", key.user_id) != key.user_id:
        await check_user(store, changes["user_id"])
    return _found(await store.update(ApiKey, id, changes) if changes else key)


async def revoke_key(store: Store, id: str) -> ApiKey:
    """The key, which opens nothing from now on; may be repeated. Raises ``NotFound``."""
    key = await find_key(store, id)
    if key.revoked_at is None:
        key = _found(await store.update(ApiKey, id, {"revoked_at": now()}))
    return key


async def rotate_key(store: Store, id: str, asked: KeyRotate) -> tuple[ApiKey, str]:
    """The key with a new secret; the one before opens for ``overlap_s`` more, the one before that no longer.
    Raises ``NotFound``, and ``Conflict`` for a key that is revoked."""
    key = await find_key(store, id)
    if key.revoked_at is not None:
        raise Conflict("This key is revoked; create another one.", "key_revoked")
    secret = make_key()
    changes = {
        "secret_hash": hash_of(secret),
        "hint": hint_of(secret),
        "previous_hash": key.secret_hash if asked.overlap_s else None,
        "previous_expires_at": now() + timedelta(seconds=asked.overlap_s) if asked.overlap_s else None,
    }
    return _found(await store.update(ApiKey, id, changes)), secret


async def check_user(store: Store, user_id: str) -> None:
    """Return if the user may be given a key. Raises ``UnprocessableEntity``."""
    user = await store.get(User, user_id)
    if user is None or user.deleted_at is not None:
        why = (
            "There is no such user; make it first with POST /v1/users."
            if user is None
            else "This user was deleted."
        )
        raise UnprocessableEntity(why, "user_not_found", "user_id")


def now() -> datetime:
    """This moment as a store keeps it."""
    return to_millisecond(datetime.now(UTC))


async def _make_own_user(store: Store, key: ApiKey) -> None:
    """Before the key itself: a user without a key does no harm, a key without a user opens nothing."""
    await store.add(User(id=key.user_id, created_at=key.created_at))


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as fields of ``ApiKey``."""
    fields = dict(values)
    if fields.get("allowed_models") is not None:
        fields["allowed_models"] = tuple(fields["allowed_models"])
    if "metadata" in fields:
        fields["metadata"] = fields["metadata"] or {}
    return fields


def _found(key: ApiKey | None) -> ApiKey:
    if key is None:
        raise NotFound("There is no key with this id.", "key_not_found")
    return key
