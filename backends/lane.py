"""A database in a file, behind one thread: what an embedded sink or store needs beside its SQL.

Takes jobs, runs one after the other on a thread that alone touches the connection; gives their results to
the event loop. Knows no driver: how to connect and what an error means is told to it. Retries nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from .errors import SinkBatchRejected, SinkError, SinkRetryable
from .waiting import wait_for_end

Identity: TypeAlias = tuple[tuple[int, int], ...]


class Connection(Protocol):
    """The part of a driver's connection that the lane itself uses."""

    def close(self) -> None: ...

    def interrupt(self) -> None:
        """End the statement under way. The one method that another thread may call."""
        ...


C = TypeVar("C", bound=Connection)
Answer = TypeVar("Answer")


class DatabaseFile:
    """Where the database is, and which files are there now. Paths are made absolute once."""

    def __init__(self, path: Path) -> None:
        self.path = os.path.abspath(path)
        self._has_made_folder = False

    def prepare(self) -> None:
        """Make the folder, once. A folder that goes while we run may be a disk that is gone: to make it
        anew would hide that, so this raises ``SinkRetryable`` until somebody brings it back."""
        folder = os.path.dirname(self.path)
        if not self._has_made_folder:
            os.makedirs(folder, exist_ok=True)
            self._has_made_folder = True
        elif not os.path.isdir(folder):
            raise SinkRetryable("folder_gone", f"the folder {folder} is gone", ambiguous=False)

    def identity(self) -> Identity | None:
        """Which files the paths name, database and write-ahead log; None if one is missing."""
        try:
            found = [os.stat(path) for path in (self.path, self.path + "-wal")]
        except OSError:
            return None
        return tuple((each.st_dev, each.st_ino) for each in found)


class Lane(Generic[C]):
    """One thread and its connection, which is opened when first needed and dropped after any trouble.

    ``connect`` opens it; ``translated`` turns what the driver raises into ``SinkError``.
    """

    def __init__(
        self,
        name: str,
        file: DatabaseFile,
        connect: Callable[[], C],
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._file = file
        self._connect = connect
        self._translated = translated
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: C | None = None
        self._identity: Identity | None = None
        self._is_busy = False
        self._is_ending = False

    async def run(self, job: Callable[[C], Answer]) -> Answer:
        """What ``job`` returns, run after those before it. Cancelled while it waits for its turn, it never
        runs; cancelled later, it runs to its end. Raises ``SinkError`` alone."""
        if self._is_ending:
            raise SinkRetryable("closing", "the database is being closed", ambiguous=False)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, job)

    @property
    def use(self) -> Literal["closed", "idle", "in_use"]:
        """What the connection is doing; a guess, as the thread goes on meanwhile."""
        if self._is_busy:
            return "in_use"
        return "closed" if self._connection is None else "idle"

    def abort(self) -> None:
        """End the statement under way and refuse the jobs behind it. From any thread; repeatable."""
        self._is_ending = True
        connection = self._connection
        if connection and self._is_busy:  # an idle one would remember it, and not tidy up when closed
            with suppress(SinkError), self._translated():  # its thread may be closing it in this very moment
                connection.interrupt()

    def let_go(self) -> asyncio.Future[None]:
        """End the statement under way, the connection and the thread; done when the connection is closed. A
        thread that is stuck in the operating system does so later, by itself. Not repeatable."""
        self.abort()
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        self._thread.shutdown(wait=False)
        return closing

    # --- on the thread

    def _attempt(self, job: Callable[[C], Answer]) -> Answer:
        if self._is_ending:
            raise SinkRetryable("closing", "the database is being closed", ambiguous=False)
        self._is_busy = True
        try:
            with self._translated():
                answer = job(self._connected())
                self._confirm_place()
                return answer
        except SinkBatchRejected:
            raise
        except BaseException:
            self._drop()  # a connection that met a full disk or a lost file may lie about the next commit
            raise
        finally:
            self._is_busy = False

    def _connected(self) -> C:
        if self._connection and self._file.identity() != self._identity:
            self._drop()
        if self._connection is None:
            self._file.prepare()
            self._connection = self._connect()
            self._identity = self._file.identity()
        return self._connection

    def _confirm_place(self) -> None:
        """A file that was deleted takes commits as before, and they are gone with its last connection."""
        if self._identity is None or self._file.identity() != self._identity:
            raise SinkRetryable("file_gone", f"{self._file.path} was moved or deleted", ambiguous=True)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            with suppress(SinkError), self._translated():
                connection.close()


async def close_lanes(lanes: Iterable[Lane[Any]], within_s: float) -> None:
    """Close the ``lanes`` of one file in ``within_s`` seconds, one after the other: the last connection of a
    file is the one that tidies up, and of two that close in the same moment neither may think it is. A cancel
    ends the waiting alone: each lane is let go. Not repeatable."""
    now = asyncio.get_running_loop().time
    end_by, open_lanes = now() + within_s, list(lanes)
    for lane in open_lanes:
        lane.abort()
    try:
        while open_lanes:
            await wait_for_end(open_lanes.pop(0).let_go(), max(0.0, end_by - now()))
    finally:
        for lane in open_lanes:
            lane.let_go()


def uses(lanes: Iterable[Lane[Any]]) -> Mapping[str, int]:
    """How many of the connections are ``in_use`` and ``idle``."""
    found = [lane.use for lane in lanes]
    return {"in_use": found.count("in_use"), "idle": found.count("idle")}
