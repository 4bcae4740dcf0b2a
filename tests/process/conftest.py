"""The real command, the real provider, real signals: processes that a test can listen to and must not leak.

Takes a configuration; gives a running gateway whose stderr is read line by line, so that a test waits for
what is said and never for time to pass. Whatever happens, every process is killed with all it started. A
gateway that a test has let exit is judged: its report adds up, agrees with the file, and stderr is clean.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
import yaml
from process.durable import disk_full, durable, servers, sink_name
from process.oracle import oracle, priced
from process.stores import accounts
from servers.provider import HeldProvider

__all__ = ["accounts", "disk_full", "durable", "oracle", "priced", "servers", "sink_name"]

PROVIDER = Path(__file__).parents[2] / "load" / "fake_provider.py"
MASTER_KEY = "tg-master-that-no-log-may-hold"
PROVIDER_KEY = "sk-provider-that-no-log-may-hold"
PROMPT = "prompt-that-no-log-may-hold"
SECRETS = (MASTER_KEY, PROVIDER_KEY, PROMPT)
LINE_S = 30.0
EXIT_S = 45.0
MAX_LINE_BYTES = 4 * 1024 * 1024
OURS = ("GATEWAY_", "TALLYGATE_", "LOG_WRITER_STRATEGY", "BUDGET_STRATEGY", "PYTHON")


def clean_environment() -> dict[str, str]:
    """Ours, without what would make the gateway another one than the test's, and without the certificates
    that the system trusts: no test asks for them, and to read them takes a tenth of each start."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**ours, "SSL_CERT_FILE": os.devnull}


class Process:
    """A program whose stderr is read as it comes. ``lines`` are those that are JSON objects."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._changed = asyncio.Condition()
        self._reading = asyncio.ensure_future(self._read())
        self.text: list[str] = []
        self.lines: list[dict[str, Any]] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def said(self, event: str, *, times: int = 1, **fields: Any) -> dict[str, Any]:
        """The first line of this event with these fields, waited for; or the one that makes it ``times``."""
        async with asyncio.timeout(LINE_S), self._changed:
            while len(lines := self.all_of(event, **fields)) < times:
                assert not self._reading.done(), f"ended without {event} {fields}:\n{self}"
                await self._changed.wait()
        return lines[times - 1]

    def all_of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        wanted = {"event": event, **fields}
        return [line for line in self.lines if all(line.get(key) == wanted[key] for key in wanted)]

    async def exit_status(self) -> int:
        """Waits for the end; then every line is there."""
        async with asyncio.timeout(EXIT_S):
            await asyncio.shield(self._reading)
            return await self._process.wait()

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._keep(line.decode().rstrip("\n"))
            async with self._changed:
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()

    def _keep(self, text: str) -> None:
        self.text.append(text)
        with suppress(ValueError):
            if isinstance(line := json.loads(text), dict):
                self.lines.append(line)

    def __repr__(self) -> str:
        return "\n".join(["the last lines of stderr:", *self.text[-20:]])


@asynccontextmanager
async def running(*command: str, cwd: Path, env: Mapping[str, str]) -> AsyncIterator[Process]:
    """A process in a session of its own, which is killed as a whole in the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**env, "PYTHONUNBUFFERED": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
        start_new_session=True,
    )
    ours = Process(process)
    try:
        yield ours
    finally:
        await ours.kill()


# --- the gateway


@dataclass
class Gateway:
    """A gateway that listens, and a client of it. ``prefix`` begins the request ids of its calls."""

    process: Process
    url: str
    session: aiohttp.ClientSession
    folder: Path
    provider_url: str
    prefix: str = field(default_factory=lambda: uuid4().hex[:8])
    exit_status: int | None = None
    is_first: bool = True
    _numbers: int = 0

    @property
    def database(self) -> Path:
        return self.folder / "data" / "usage.db"

    def chat(
        self, *, stream: bool = False, name: str = "", tokens: int = 5, user: str | None = None, **fake: Any
    ) -> Any:
        """A call under way; ``fake`` tells the provider how it is to go. For ``async with``."""
        self._numbers += 1
        body = {
            "model": "local:fake",
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": stream,
            "max_tokens": tokens,
            "fake": fake,
            **({} if user is None else {"user": user}),
        }
        headers = {"x-request-id": f"{self.prefix}-{name or self._numbers}"}
        return self.session.post("/v1/chat/completions", json=body, headers=headers)

    async def answered(self, **fake: Any) -> UUID:
        """A plain call that goes well; the id it was promised."""
        async with self.chat(**fake) as response:
            assert response.status == 200, await response.text()
            await response.read()
            return self.promised(response)

    async def answered_as(self, name: str) -> UUID:
        """A plain call with this at the end of its request id; the id it was promised."""
        async with self.chat(name=name) as response:
            await response.read()
            return self.promised(response)

    @staticmethod
    def promised(response: aiohttp.ClientResponse) -> UUID:
        """The row's id on the head of an answer."""
        return UUID(response.headers["x-usage-id"])

    async def outcome(self, call: Any) -> tuple[int, str | None]:
        """Status and error code of a call, at the end of its stream if it is one."""
        async with call as response:
            if response.content_type == "text/event-stream":
                return response.status, await self.last_code(response)
            return response.status, (await response.json()).get("error", {}).get("code")

    @staticmethod
    async def last_code(stream: aiohttp.ClientResponse) -> str:
        """The error code in the last event of a stream that began well."""
        last = (await stream.read()).split(b"\n\n")[-2]
        code: str = json.loads(last.removeprefix(b"data: "))["error"]["code"]
        return code

    async def ledger(self) -> dict[str, Any]:
        async with self.session.get("/v1/log-writer") as response:
            ledger: dict[str, Any] = await response.json()
            return ledger

    async def ledger_shows(self, **counts: int) -> None:
        """Returns once the live ledger has these counts: asked again and again, for it has no event."""
        ledger: dict[str, Any] = {}
        try:
            async with asyncio.timeout(LINE_S):
                while not counts.items() <= (ledger := await self.ledger()).items():
                    assert ledger["unaccounted"] == 0, ledger
        except TimeoutError:
            raise AssertionError(f"the ledger shows {ledger}, not {counts}") from None

    async def begun(self, calls: int) -> None:
        """Returns once so many of our calls have reached the provider."""
        async with asyncio.timeout(LINE_S):
            while len(await self.seen_by_provider()) < calls:
                pass

    async def readiness(self) -> tuple[int, str]:
        async with self.session.get("/health/readiness") as response:
            return response.status, (await response.json())["status"]

    async def is_degraded(self, reason: str) -> None:
        """Returns once readiness names ``reason``."""
        async with asyncio.timeout(LINE_S):
            while True:
                async with self.session.get("/health/readiness") as response:
                    if reason in (await response.json()).get("degraded", ()):
                        return

    async def pumps(self, count: int) -> None:
        """Returns once so many streams are read on without a client: asked again and again likewise."""
        async with asyncio.timeout(LINE_S):
            while f"gateway_stream_pumps {float(count)}\n" not in await self.metrics():
                pass

    async def metrics(self) -> str:
        async with self.session.get("/metrics") as response:
            return await response.text()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """One signal, and the exit status that follows."""
        self.process.send(number)
        return await self.exits()

    async def exits(self) -> int:
        self.exit_status = await self.process.exit_status()
        return self.exit_status

    @property
    def report(self) -> dict[str, Any]:
        """The one shutdown report."""
        (report,) = self.process.all_of("shutdown_report")
        return report

    def abandoned(self) -> list[UUID]:
        """The ids that were logged as abandoned."""
        return [UUID(each) for line in self.process.all_of("rows_abandoned") for each in line["ids"]]

    def rows(self) -> list[dict[str, Any]]:
        """What the file holds, read from outside."""
        return read_rows(self.database)

    def accounted_for(self) -> set[UUID]:
        """The ids that are stored or named as abandoned."""
        return {*self.abandoned(), *(row["id"] for row in self.rows())}

    def row(self, row_id: UUID) -> dict[str, Any]:
        """The one row of a call."""
        (row,) = [row for row in self.rows() if row["id"] == row_id]
        return row

    async def seen_by_provider(self) -> list[str]:
        """The request ids of this gateway's calls that reached the provider."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.provider_url}/calls") as response:
            names = [call["request_id"] for call in await response.json()]
        return [name for name in names if name and name.startswith(self.prefix)]

    def judge(self) -> None:
        """What holds at the end of every gateway, however it ended."""
        assert self.exit_status is not None, "a test lets its gateway exit"
        judge_stderr(self.process)
        report = self.report
        ends = ("committed", "duplicates", "dead_lettered", "spooled", "abandoned")
        assert report["accepted"] == sum(report[name] for name in ends), report
        assert report["queued"] == report["in_flight"] == report["unaccounted"] == 0, report
        assert report["clean"] is (report["abandoned"] == 0)
        assert self.exit_status == (3 if report["abandoned"] else 0)
        self._judge_rows(report)

    def _judge_rows(self, report: Mapping[str, Any]) -> None:
        ids = Counter(row["id"] for row in self.rows())
        named = Counter(self.abandoned())
        assert report["abandoned"] == named.total() == len(named), "each abandoned row is named, once"
        assert set(ids.values()) <= {1}
        # A row that was given up while its write was under way may have been written all the same.
        stored = report["committed"] + report["duplicates"]
        if not report["strategy"].endswith("sqlite"):
            return
        if self.is_first:  # else there are rows of earlier runs
            assert stored <= len(ids) <= stored + report["abandoned"]
            assert stored == len(ids.keys() - named.keys())


def read_rows(database: Path) -> list[dict[str, Any]]:
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'usage_logs'").fetchone():
            return []
        found = [dict(row) for row in connection.execute("SELECT * FROM usage_logs ORDER BY seq")]
    return [{**row, "id": UUID(row["id"])} for row in found]


def judge_stderr(process: Process) -> None:
    """JSON lines alone: no traceback, no secret, no word of a prompt, no complaint of the event loop."""
    text = "\n".join(process.text)
    assert len(process.text) == len(process.lines), f"not only JSON:\n{text}"
    for forbidden in ("raceback", *SECRETS, "never awaited", "never retrieved", "destroyed"):
        assert forbidden not in text, f"{forbidden!r} in stderr:\n{process}"


def provided_by(url: str) -> dict[str, Any]:
    """The section ``providers`` with one that is at ``url``."""
    return {"local": {"type": "openai", "base_url": f"{url}/v1", "api_key": PROVIDER_KEY}}


Serve = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture
def configuration(tmp_path: Path, provider_url: str) -> Callable[..., Path]:
    """Writes a configuration file; keywords replace whole sections."""

    def write(**sections: Any) -> Path:
        values = {
            "master_key": MASTER_KEY,
            "log_writer_strategy": "batch:sqlite",
            "sinks": {"sqlite": {"path": str(tmp_path / "data" / "usage.db"), "busy_timeout_s": 0.2}},
            "spool": {"mode": "off", "path": str(tmp_path / "data" / "spool")},
            "providers": provided_by(provider_url),
            **sections,
        }
        path = tmp_path / "gateway.yml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture
def serve_unready(
    tmp_path: Path, configuration: Callable[..., Path]
) -> Callable[..., AbstractAsyncContextManager[Process]]:
    """As ``serve``, but gives the process as soon as it is there, and judges nothing."""

    def started(env: Mapping[str, str] | None = None, **sections: Any) -> Any:
        command = ("serve", "--config", str(configuration(**sections)), "--port", "0")
        environment = {**clean_environment(), **(env or {})}
        return running(sys.executable, "-m", "gateway", *command, cwd=tmp_path, env=environment)

    return started


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Process]]:
    """``async with start(*command) as process``: any program."""

    def started(*command: str) -> AbstractAsyncContextManager[Process]:
        return running(*command, cwd=tmp_path, env=clean_environment())

    return started


@pytest.fixture
def master_key() -> str:
    """What the gateways of ``serve`` are called with."""
    return MASTER_KEY


@pytest.fixture
def crashing(
    serve_unready: Callable[..., AbstractAsyncContextManager[Process]],
    gateway_of: Callable[[Process], AbstractAsyncContextManager[Gateway]],
) -> Serve:
    """As ``serve``, for a gateway that will not live to be judged."""

    @asynccontextmanager
    async def started(**sections: Any) -> AsyncIterator[Gateway]:
        async with serve_unready(**sections) as process, gateway_of(process) as gateway:
            yield gateway

    return started


@pytest.fixture
def spool(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``spool(mode)``: the section, for a folder that outlives each process."""

    def section(mode: str, **more: Any) -> dict[str, Any]:
        return {"mode": mode, "path": str(tmp_path / "data" / "spool"), **more}

    return section


@pytest.fixture
def gateway_of(
    tmp_path: Path, provider_url: str
) -> Callable[[Process], AbstractAsyncContextManager[Gateway]]:
    """``async with gateway_of(process) as gateway``: once it listens."""

    @asynccontextmanager
    async def listening(process: Process) -> AsyncIterator[Gateway]:
        url = (await process.said("listening"))["url"]
        async with client(url) as session:
            is_first = not (tmp_path / "data" / "usage.db").exists()
            yield Gateway(process, url, session, tmp_path, provider_url, is_first=is_first)

    return listening


@pytest.fixture
def serve(
    gateway_of: Callable[[Process], AbstractAsyncContextManager[Gateway]],
    serve_unready: Callable[..., AbstractAsyncContextManager[Process]],
) -> Serve:
    """``async with serve(section=..., ...) as gateway``: the real command, listening; judged when it left."""

    @asynccontextmanager
    async def started(**sections: Any) -> AsyncIterator[Gateway]:
        async with serve_unready(**sections) as process:
            async with gateway_of(process) as gateway:
                yield gateway
            gateway.judge()

    return started


@asynccontextmanager
async def client(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A session without a limit of its own, authenticated."""
    async with aiohttp.ClientSession(
        base_url=url,
        headers={"Authorization": f"Bearer {MASTER_KEY}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=EXIT_S),
    ) as session:
        yield session


# --- what stands beside it


@pytest.fixture(scope="session")
def provider_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fake provider in a process of its own, for all tests: each call says how it is to go."""
    process = subprocess.Popen(
        [sys.executable, str(PROVIDER), "--port", "0"],
        cwd=tmp_path_factory.mktemp("provider"),
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], LINE_S)[0], "the provider says nothing"
        yield json.loads(process.stdout.readline())["url"]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=EXIT_S)


@pytest.fixture
async def held() -> AsyncIterator[HeldProvider]:
    """A provider whose answers this test holds back; for gateways with ``held_providers``."""
    async with HeldProvider.running() as provider:
        yield provider


@pytest.fixture
def held_providers(held: HeldProvider) -> dict[str, Any]:
    """The section ``providers`` with ``held`` alone."""
    return provided_by(held.url)


@pytest.fixture
def serve_held(serve: Serve, held_providers: dict[str, Any]) -> Serve:
    """As ``serve``, with ``held`` for its provider."""
    return partial(serve, providers=held_providers)


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    database.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.rollback()


@pytest.fixture
def locked() -> Callable[[Path], Any]:
    """``with locked(path)``: another process than the gateway, namely this one, holds the file's lock."""
    return _locked


Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command to its end; gives exit status, stdout and stderr."""

    async def finished(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *arguments),
            cwd=tmp_path,
            env={**clean_environment(), **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(EXIT_S):
                out, err = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    return finished


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Process]]:
    """``async with script(text, *arguments) as process``: a program of the test's own, with every
    warning shown, so that nothing forgotten goes unsaid."""

    def started(text: str, *arguments: str) -> AbstractAsyncContextManager[Process]:
        path = tmp_path / "script.py"
        path.write_text(text)
        command = (sys.executable, "-W", "default", str(path), *arguments)
        return running(*command, cwd=tmp_path, env=clean_environment())

    return started
