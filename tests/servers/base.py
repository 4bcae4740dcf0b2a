"""Real servers for the tests: where they are installed, how they are run, killed, frozen and ended.

Takes from each server's own module how to install it, how to start it and when it answers; gives the life of
its processes. Servers live in environments of their own under the user's cache folder, never in the one under
test, and listen on a free port of 127.0.0.1. Import it as ``servers.base``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import Any, ClassVar, NoReturn, Self, TypeVar

import pytest

START_S = 60.0
"""How long a server may take until it answers."""
STOP_S = 15.0
_POLL_S = 0.02
_COMPLETE = ".complete"
_PORTS = range(15_000, 32_000)
"""Below those that a system gives to whoever connects: while a server is down, one of its own clients could
come to sit on its port."""
_KEPT_FROM_CHILDREN = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONWARNINGS", "PYTEST_CURRENT_TEST"}

_WATCH = """
import os, signal, sys
group = 0
for line in sys.stdin:
    group = int(line)
if group:
    os.killpg(group, signal.SIGKILL)
"""
"""Ends a server whose test run died, however that one ended: its standard input is closed then."""


class ServerMissing(Exception):
    """This machine has no such server and none could be installed; the message says what would provide it."""


# --- missing servers


def required() -> bool:
    """Whether a missing server is a failure: with ``CI=true`` or ``TALLYGATE_SERVERS=required``."""
    is_ci = os.environ.get("CI", "").lower() in ("1", "true")
    return is_ci or os.environ.get("TALLYGATE_SERVERS") == "required"


def unavailable(missing: ServerMissing) -> NoReturn:
    """Fail or skip, with the reason."""
    if required():
        pytest.fail(f"a server is missing: {missing}", pytrace=False)
    pytest.skip(str(missing))


AnyServer = TypeVar("AnyServer", bound="Server")


def running(make: Callable[[], AnyServer]) -> Iterator[AnyServer]:
    """The body of a session fixture: ``yield from running(PostgresServer.find)``."""
    try:
        server = make()
        server.start()
    except ServerMissing as missing:
        unavailable(missing)
    try:
        yield server
    finally:
        server.stop()


# --- installing


def cache_folder() -> Path:
    """Where servers are kept from one test run to the next."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "tallygate" / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def built(name: str, build: Callable[[Path], None], needs: Sequence[str] = ()) -> Path:
    """The folder ``name`` in the cache, filled by ``build`` when it is not complete, or when one of the files
    ``needs`` in it is gone. Of several test runs one builds, the others wait."""
    folder = cache_folder() / name
    with locked(folder.with_name(f"{name}.lock")):
        if not _is_complete(folder, needs):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            build(folder)
            (folder / _COMPLETE).touch()
    return folder


def venv_with(name: str, *requirements: str) -> Path:
    """The Python of the environment ``name`` in the cache with ``requirements`` (pinned: ``x==1.2``)
    installed. Raises ``ServerMissing``."""

    def build(folder: Path) -> None:
        what = f"install {' '.join(requirements)}"
        run([sys.executable, "-m", "venv", str(folder)], what)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
        run([*pip, "--disable-pip-version-check", *requirements], what)

    return built(name, build, needs=["bin/python"]) / "bin" / "python"


def run(command: Sequence[str], what: str, **options: object) -> str:
    """What ``command`` prints. Raises ``ServerMissing``: cannot ``what``, and why."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **{"env": environment(), **options},  # type: ignore[call-overload]
        )
    except OSError as error:
        raise ServerMissing(f"cannot {what}: {error}") from error
    if done.returncode:
        raise ServerMissing(f"cannot {what}: {done.stdout.strip()[-500:]}")
    return str(done.stdout)


def environment(**more: str) -> dict[str, str]:
    """The environment for a server's process: ours, without what speaks of the environment under test."""
    ours = {name: value for name, value in os.environ.items() if name not in _KEPT_FROM_CHILDREN}
    return {**ours, **more}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Within, no other test run is within the same ``path``."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_complete(folder: Path, needs: Sequence[str]) -> bool:
    return all((folder / name).exists() for name in (_COMPLETE, *needs))


# --- running


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now, and that nobody is given who asks for any port."""
    return next(port for port in SystemRandom().sample(_PORTS, len(_PORTS)) if _is_free(port))


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.socket() as sock:
        sock.bind(("127.0.0.1", port))
        return True
    return False


def listens(port: int) -> bool:
    """Whether somebody takes connections on ``port`` of 127.0.0.1."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class Server:
    """One server. A module of its own subclasses this and gives ``name``, ``command`` and ``is_ready``, and
    where needed ``prepare`` and ``variables``. All methods block; call them with ``asyncio.to_thread`` where
    the event loop has to go on. ``folder`` holds the data and the log; the port stays the same for life."""

    name: ClassVar[str]
    is_ours: ClassVar[bool] = True
    """False for a server that a variable names: it can be used, not killed (see ``need_ours``)."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"tallygate-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[str] | None = None

    # --- for the server's own module

    def prepare(self) -> None:
        """Before the first start: make the data folder. Raises ``ServerMissing``."""

    def command(self) -> Sequence[str]:
        """What to run in the foreground. Its process is the server, or the parent of all its processes."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether a client would be served now."""
        return listens(self.port)

    def variables(self) -> Mapping[str, str]:
        """More environment variables for ``command``."""
        return {}

    def identity(self) -> dict[str, Any]:
        """``user`` and ``group`` to run ``command`` as, where it must not be ours."""
        return {}

    # --- for fixtures and tests

    @property
    def pid(self) -> int:
        """The process that ``command`` became."""
        assert self._process, f"{self.name} is not running"
        return self._process.pid

    def start(self) -> Self:
        """Start it and return once it answers. Raises ``ServerMissing``."""
        try:
            self.prepare()
            self._launch()
        except BaseException:
            self.stop()
            raise
        return self

    def kill(self) -> None:
        """SIGKILL, to all of its processes at once. What it had not made durable is lost."""
        process = self._process
        assert process, f"{self.name} is not running"
        victims = family(process.pid)
        _signal(victims, signal.SIGSTOP)  # nobody tidies up, or has new children, while the others die
        _signal(family(process.pid), signal.SIGKILL)
        process.wait()
        _wait_until_gone(victims)
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nobody answers."""
        _signal(family(self.pid), signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, after ``freeze``."""
        _signal(family(self.pid), signal.SIGCONT)

    def restart(self) -> None:
        """On the same data and the same port, after ``kill``, or else by a kill; returns once it answers."""
        if self._process:
            self.kill()
        self._launch()

    def stop(self) -> None:
        """End it and remove its data. Repeatable."""
        if self._process:
            self.thaw()
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(STOP_S)
                self._process = None
            except subprocess.TimeoutExpired:
                self.kill()
        self._dismiss_watch()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """The end of what it printed."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def _launch(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(**self.variables()),
                start_new_session=True,  # Ctrl-C is for the tests; their fixtures end the server
                **self.identity(),
            )
        self._tell_watch(self._process.pid)
        self._await_ready(time.monotonic() + START_S)

    def _tell_watch(self, group: int) -> None:
        if self._watch is None:
            command = [sys.executable, "-c", _WATCH]
            self._watch = subprocess.Popen(
                command, stdin=subprocess.PIPE, text=True, start_new_session=True, bufsize=1
            )
        assert self._watch.stdin
        self._watch.stdin.write(f"{group}\n")

    def _dismiss_watch(self) -> None:
        if self._watch:
            self._tell_watch(0)
            self._watch.communicate()
            self._watch = None

    def _await_ready(self, deadline: float) -> None:
        assert self._process
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerMissing(f"{self.name} does not start: {self.log()}")
            time.sleep(_POLL_S)


def need_ours(server: Server) -> None:
    """Go on only if the test may kill ``server``."""
    if not server.is_ours:
        pytest.skip(f"not offered: the {server.name} server that a variable names is not ours to kill")


# --- processes


def family(pid: int) -> list[int]:
    """``pid`` and all its descendants, parents first: servers put children in sessions of their own."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _parents() -> Iterator[tuple[int, int]]:
    """Every process and its parent."""
    if not os.path.isdir("/proc/self"):
        listing = subprocess.run(["ps", "-Ao", "pid=,ppid="], capture_output=True, text=True, check=True)
        yield from (tuple(map(int, line.split())) for line in listing.stdout.splitlines())  # type: ignore[misc]
        return
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
            yield int(name), int(stat.read().rpartition(")")[2].split()[1])


def _signal(pids: Sequence[int], signum: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


def _wait_until_gone(pids: Sequence[int]) -> None:
    """Orphans are reaped by somebody else; until then they may hold port and files."""
    deadline = time.monotonic() + STOP_S
    while any(map(_is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _is_alive(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"
    return False
