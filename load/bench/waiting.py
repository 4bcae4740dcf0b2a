"""Until a server that says nothing answers."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

from processes import Child, ChildFailed

START_S = 120.0
LOOK_S = 0.1


async def until_it_answers(url: str, running: Child) -> None:
    """Returns when there is somebody at the port of ``url``. Raises ``ChildFailed``."""
    parts = urlsplit(url)
    deadline = time.perf_counter() + START_S
    while time.perf_counter() < deadline:
        try:
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            await _ended(running)
        else:
            writer.close()
            return
    raise ChildFailed(f"the {running.name} does not answer")


async def _ended(running: Child) -> None:
    try:
        status = await running.exit_status(LOOK_S)
    except TimeoutError:
        return
    raise ChildFailed(f"the {running.name} ended with {status}; see its log")
