"""A port for several processes: one holds it for all, so that nobody else gets it while they come and go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def held(host: str, port: int) -> Iterator[int]:
    """Holds a port, a free one for 0, for the workers to share. It is bound and never listens."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    if port:  # another gateway's workers would let ours share their port: so ask for it alone first
        _bound(family, kind, address, socket.SO_REUSEADDR).close()
    with _bound(family, kind, address, socket.SO_REUSEADDR, socket.SO_REUSEPORT) as held:
        yield held.getsockname()[1]


def _bound(family: int, kind: int, address: Any, *options: int) -> socket.socket:
    bound = socket.socket(family, kind)
    try:
        for option in options:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound
