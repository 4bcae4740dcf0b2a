"""The key that may do everything: the configuration's, or one that is made at the first start.

Takes what is configured and the store; knows the hash alone. Of all processes that start without a
configured key one makes it and prints it once; the store keeps its hash for all.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import sys
from collections.abc import Callable

from backends import Store, StoreUnavailable

from .secrets import hash_of, make_key

log = logging.getLogger("gateway.access")

ASK_AGAIN_S = 1.0


def announce(secret: str) -> None:
    """Print a master key that was just made. On stdout and never through logging, which is kept."""
    sys.stdout.write(f"master key (shown only now): {secret}\n")
    sys.stdout.flush()


class MasterKey:
    """``configured`` None: until ``settle`` has asked the store, nobody is the master, and nobody is refused
    for that."""

    def __init__(
        self, configured: str | None, store: Store, announce: Callable[[str], None] = announce
    ) -> None:
        self._hash = None if configured is None else hash_of(configured)
        self._store = store
        self._announce = announce

    @property
    def is_known(self) -> bool:
        """Whether it can be told who is the master."""
        return self._hash is not None

    def has_hash(self, secret_hash: str) -> bool:
        """Whether the secret of this hash is the master key. In constant time."""
        return self._hash is not None and hmac.compare_digest(self._hash, secret_hash)

    def require_known(self) -> None:
        """Return if a key that is not the master's is certainly not. Raises ``StoreUnavailable``."""
        if self._hash is None:
            raise StoreUnavailable("master_key", "the hash of the master key was not read yet")

    async def settle(self) -> None:
        """Return once the key is known: make one, unless the store keeps one. Asks until it is told."""
        secret, is_said = make_key(), False
        while self._hash is None:
            try:
                self._hash = await self._store.keep_master_key(hash_of(secret))
            except StoreUnavailable as error:
                if not is_said:
                    log.warning("master_key_unknown", extra={"code": error.code})
                is_said = True
                await asyncio.sleep(ASK_AGAIN_S)
                continue
            if self._hash == hash_of(secret):
                self._show(secret)

    def _show(self, secret: str) -> None:
        try:
            self._announce(secret)
        except (OSError, ValueError):  # stdout is closed or full
            log.error("master_key_not_shown", extra={"remedy": "set master_key: that is the one then"})
