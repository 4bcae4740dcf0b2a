"""The two programs that the front door starts, a fake provider and the gateway, as children with a bound.

Takes commands; gives children whose JSON lines can be awaited. A child that is still there when its block
ends, for whatever reason, is killed with everything it started. Imports nothing of the gateway's code.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "config" / "quickstart.yml"
START_S = 30.0
MAX_LINE_BYTES = 4 * 1024 * 1024
TAIL_LINES = 20
LAST_WORDS_S = 5.0
"""How long a killed child's pipes are read on: a program it started may still hold them open."""
OURS = ("GATEWAY_", "TALLYGATE_", "LOG_WRITER_STRATEGY", "BUDGET_STRATEGY")
"""Variables that would make the gateway another one than the front door promises."""


class ChildFailed(Exception):
    """A child ended, or fell silent, before it said what was waited for."""


class Child:
    """A running program. ``said`` and ``exit_status`` may be awaited again and again, and be cancelled."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        loop = asyncio.get_running_loop()
        self._first: defaultdict[str, asyncio.Future[dict[str, Any]]] = defaultdict(loop.create_future)
        self._listening = loop.create_task(self._listen(), name=f"output of {name}")

    async def said(self, event: str, timeout_s: float) -> dict[str, Any]:
        """The first line ``{"event": event, ...}``. Raises ``ChildFailed`` when it does not come."""
        line = self._first[event]
        either: set[asyncio.Future[Any]] = {line, self._listening}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if line.done():
            return line.result()
        why = "ended before it said" if self._listening.done() else "is there, but has not said"
        raise ChildFailed(f"the {self.name} {why} {event!r}; its last lines:\n" + "\n".join(self._tail))

    async def exit_status(self, timeout_s: float | None = None) -> int:
        """Waits for the end, and for the last line. Raises ``TimeoutError``."""
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._listening)
            return await self._process.wait()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    def stop(self) -> None:
        """SIGTERM, to the program alone: what it started is its own to stop."""
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        """A signal, to the program alone."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def tell(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def kill(self) -> None:
        """The end of the program and of all it started, which share its session."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await asyncio.wait({self._listening}, timeout=LAST_WORDS_S)
        self._listening.cancel()

    async def _listen(self) -> None:
        streams = [each for each in (self._process.stdout, self._process.stderr) if each is not None]
        with self._log.open("ab", buffering=0) as log:
            await asyncio.gather(*(self._read(each, log.write) for each in streams))

    async def _read(self, stream: asyncio.StreamReader, keep: Callable[[bytes], object]) -> None:
        async for line in stream:
            keep(line)
            text = line.decode(errors="replace").rstrip()
            self._tail.append(text)
            self._note(text)

    def _note(self, text: str) -> None:
        with suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and not (first := self._first[str(line.get("event"))]).done():
                first.set_result(line)


@asynccontextmanager
async def child(name: str, *command: str, env: Mapping[str, str], folder: Path) -> AsyncIterator[Child]:
    """Runs ``command`` with ``folder`` as its working directory; its output is kept there too.

    The child has a session of its own, so that Ctrl-C reaches this program only, which then stops it.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**env, "PYTHONUNBUFFERED": "1"},
        cwd=folder,
        limit=MAX_LINE_BYTES,
        start_new_session=True,
    )
    running = Child(name, process, folder / f"{name}.log")
    try:
        yield running
    finally:
        await running.kill()


@asynccontextmanager
async def provider(folder: Path, *flags: str) -> AsyncIterator[str]:
    """A fake provider on a free port; gives its URL."""
    command = (sys.executable, str(ROOT / "load" / "fake_provider.py"), "--port", "0", *flags)
    async with child("provider", *command, env=os.environ, folder=folder) as running:
        yield str((await running.said("listening", START_S))["url"])


@asynccontextmanager
async def gateway(
    folder: Path,
    *,
    provider_url: str,
    master_key: str,
    port: int = 0,
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Child, str]]:
    """The real command with ``config/quickstart.yml``, ``folder`` as its place and ``variables`` in its
    environment; gives child and URL."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    env |= {"GATEWAY_MASTER_KEY": master_key, "FAKE_PROVIDER_URL": provider_url, **(variables or {})}
    command = (sys.executable, "-m", "gateway", "serve", "--config", str(QUICKSTART), "--port", str(port))
    async with child("gateway", *command, env=env, folder=folder) as running:
        yield running, str((await running.said("listening", START_S))["url"])
