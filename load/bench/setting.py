"""What every part is given: a place, cores, times, a provider, and databases when it asks for them."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import ROOT

from .cores import Cores

MISSING = "no PostgreSQL on this machine"


@dataclass(frozen=True)
class Setting:
    """``seconds`` is the length of one measurement, ``rounds`` how many of them make a median. ``beside`` is
    another checkout of this project, to be compared with."""

    folder: Path
    cores: Cores
    seconds: float
    rounds: int
    beside: Path | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def place(self) -> Path:
        """A new name for a folder."""
        return self.folder / str(next(self._numbers))

    def new_folder(self) -> Path:
        """A new folder."""
        folder = self.place()
        folder.mkdir()
        return folder


class Databases:
    """A PostgreSQL server of the tests, and a database of its own for whoever asks."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._numbers = itertools.count()

    async def dsn(self) -> str:
        """That of a new database."""
        asyncpg = importlib.import_module("asyncpg")
        name = f"bench_{next(self._numbers)}"
        connection = await asyncpg.connect(self._server.dsn)
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()
        return str(self._server.dsn_of("tallygate", database=name))


@asynccontextmanager
async def postgres() -> AsyncIterator[Databases | None]:
    """None where there is no such server to be had."""
    try:
        server = test_server("servers.postgres", "PostgresServer")
    except Exception as error:
        if not is_missing(error):
            raise
        yield None
        return
    server.start()
    try:
        yield Databases(server)
    finally:
        server.stop()


def test_server(module: str, name: str) -> Any:
    """One of the servers that the tests have. Raises ``ServerMissing``."""
    folder = str(ROOT / "tests")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return getattr(importlib.import_module(module), name).find()


def is_missing(error: Exception) -> bool:
    """Whether a server is not to be had. Its class comes with the servers, from outside this folder."""
    return type(error).__name__ == "ServerMissing"


@contextmanager
def this_process_on(cores: Collection[int]) -> Iterator[None]:
    """This process, with all its threads and what it starts inside, stays on ``cores``."""
    before = os.sched_getaffinity(0)
    _move(cores)
    try:
        yield
    finally:
        _move(before)


def _move(cores: Collection[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it ended while we looked
            os.sched_setaffinity(int(thread.name), cores)
