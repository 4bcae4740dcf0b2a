"""``tallygate keys``: make, list, revoke and turn keys, as the management API does, in the store itself.

Works beside running gateways and without one; a gateway that runs sees a change within ``store.cache_s``. A
secret is printed where it is made, once, and is nowhere else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backends import ApiKey, Store

from ..effective import masked
from ..errors import BadRequest
from ..management.answers import KeyAnswer, KeyPage, NewKeyAnswer
from ..management.bodies import checked, parse_json
from ..management.issuing import create_key, revoke_key, rotate_key
from ..management.paging import parse_page, read_page
from ..management.requests import KeyCreate, KeyRotate
from ..settings import Settings
from .output import show, show_json, until_nobody_reads
from .sink import refuse
from .store import Use, as_it_is, with_store
from .tables import table

if TYPE_CHECKING:
    from . import Commands

COLUMNS = ("id", "hint", "name", "user_id", "created_at", "expires_at", "revoked_at", "last_used_at")
NEW_COLUMNS = ("id", "user_id", "name", "key")
"""What fits a line; the other format has everything."""


# --- arguments


def add_to(commands: Commands) -> list[argparse.ArgumentParser]:
    """The parsers, added."""
    parser = commands.add_parser("keys", help="make, list, revoke and rotate keys")
    kinds = parser.add_subparsers(dest="keys", required=True)
    creating = kinds.add_parser("create", help="make a key and print its secret, this once")
    _add_members(creating)
    creating.set_defaults(run=create)
    listing = kinds.add_parser("list", help="keys, the oldest first")
    listing.add_argument("--user-id", help="only keys of this user")
    listing.add_argument("--limit", help="keys at most (default: 100)")
    listing.add_argument("--cursor", help="go on behind the page that json gave this cursor with")
    listing.set_defaults(run=list_keys)
    revoking = kinds.add_parser("revoke", help="let a key open nothing any more; may be repeated")
    revoking.add_argument("id")
    revoking.set_defaults(run=revoke)
    rotating = kinds.add_parser("rotate", help="give a key a new secret and print it, this once")
    rotating.add_argument("id")
    rotating.add_argument("--overlap-s", type=int, help="how long the old one opens, too (default: 3600)")
    rotating.set_defaults(run=rotate)
    for each in (creating, listing, rotating):
        each.add_argument("--format", choices=("table", "json"), default="table")
    return [creating, listing, revoking, rotating]


def _add_members(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="what it is for")
    parser.add_argument("--user-id", help="whose it is (default: a user of its own)")
    parser.add_argument("--expires-at", metavar="TIME", help="as 2026-01-31T23:59:59Z (default: never)")
    parser.add_argument(
        "--allowed-models", action="append", metavar="MODEL", help="may be repeated (default: all)"
    )
    parser.add_argument("--rate-limit-rpm", type=int, help="calls per minute (default: no limit)")
    parser.add_argument("--rate-limit-tpm", type=int, help="tokens per minute (default: no limit)")
    parser.add_argument("--metadata", metavar="JSON", help="an object to be kept with it")


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    found = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


# --- commands


def create(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print a new key; the exit status."""

    async def use(store: Store) -> None:
        members = _given(arguments, *KeyCreate.model_fields)
        if "metadata" in members:
            members["metadata"] = _json(members["metadata"])
        made = await create_key(store, checked(KeyCreate, members))
        sys.stderr.write(f"store: {masked(settings.store.url.get_secret_value())}\n")  # it may be a new one
        _show_new(*made, arguments.format)

    return _changing(settings, use)


def _json(metadata: str) -> Any:
    """Raises ``BadRequest``."""
    try:
        return parse_json(metadata.encode("utf-8", "surrogateescape"))  # bytes that are no UTF-8 are told
    except BadRequest as error:
        raise BadRequest("This is not valid JSON, in UTF-8.", error.code, "metadata") from None


def list_keys(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print keys; the exit status."""

    async def use(store: Store) -> None:
        asked = parse_page(_given(arguments, "user_id", "limit", "cursor"), ApiKey, ("user_id",))
        page = KeyPage.model_validate(dict(await read_page(store, ApiKey, asked, KeyAnswer.of)))
        if arguments.format == "json":
            show_json(page.model_dump(mode="json"))
        else:
            _show_lines(COLUMNS, page.data)

    return until_nobody_reads(lambda: with_store(as_it_is(settings), use))


def revoke(settings: Settings, arguments: argparse.Namespace) -> int:
    """Revoke a key; the exit status."""

    async def use(store: Store) -> None:
        key = await revoke_key(store, arguments.id)
        show(f"{key.id}: revoked\n")

    return _changing(as_it_is(settings), use)


def rotate(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print a key with its new secret; the exit status."""

    async def use(store: Store) -> None:
        asked = checked(KeyRotate, _given(arguments, "overlap_s"))
        _show_new(*await rotate_key(store, arguments.id, asked), arguments.format)

    return _changing(as_it_is(settings), use)


def _changing(settings: Settings, use: Use) -> int:
    if settings.store.url.get_secret_value().startswith("memory:"):
        return refuse("store.url: memory: is of one process alone, so no gateway would see the change")
    return with_store(settings, use)


def _show_new(key: ApiKey, secret: str, format: str) -> None:
    shown = NewKeyAnswer.with_secret(key, secret)
    if format == "json":
        show_json(shown.model_dump(mode="json"))
    else:
        _show_lines(NEW_COLUMNS, [shown])


def _show_lines(columns: Sequence[str], keys: Sequence[KeyAnswer]) -> None:
    plain = [key.model_dump(mode="json") for key in keys]
    show(table(columns, ([each[name] for name in columns] for each in plain), has_head=True))
