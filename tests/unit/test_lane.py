"""Lanes of one file: whoever ends the waiting for their end, each lets go of its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Event

from backends.lane import DatabaseFile, Lane, close_lanes

PATIENCE_S = 30.0


class Connection:
    """A driver's, which tells when it was closed."""

    def __init__(self) -> None:
        self.closed = Event()

    def close(self) -> None:
        self.closed.set()

    def interrupt(self) -> None:
        """Heeded by no statement here."""


def opened(path: Path) -> Callable[[], Connection]:
    """Makes a connection, and the files that a lane looks for."""

    def connect() -> Connection:
        for name in (path, path.with_name(f"{path.name}-wal")):
            name.touch()
        return Connection()

    return connect


def translated() -> AbstractContextManager[None]:
    return nullcontext()


async def test_a_close_that_is_cancelled_lets_go_of_every_connection(tmp_path: Path) -> None:
    file = DatabaseFile(tmp_path / "some.db")
    stuck, idle = (Lane(name, file, opened(tmp_path / "some.db"), translated) for name in ("stuck", "idle"))
    begun, goes_on = Event(), Event()
    connections = [await lane.run(lambda connection: connection) for lane in (stuck, idle)]
    job = asyncio.ensure_future(stuck.run(lambda connection: begun.set() or goes_on.wait(PATIENCE_S)))
    await asyncio.to_thread(begun.wait, PATIENCE_S)

    closing = asyncio.ensure_future(close_lanes((stuck, idle), PATIENCE_S))
    await asyncio.sleep(0)  # it waits for the one that is stuck
    closing.cancel()
    await asyncio.wait({closing})

    assert closing.cancelled()
    is_closed = await asyncio.to_thread(connections[1].closed.wait, 5)
    goes_on.set()
    await asyncio.wait({job})
    assert is_closed
    assert await asyncio.to_thread(connections[0].closed.wait, PATIENCE_S)
