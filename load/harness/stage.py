"""All that stands around one run: the fake provider, the gateway, its users and their keys.

Takes settings and a place for the rows; gives gateways that can be started, stopped and killed, and what the
provider saw. Everything is a child with a bound, gone when its block ends, for whatever reason.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from processes import OURS, ROOT, START_S, Child, child

from harness.homes import Place
from harness.settings import Settings

EXIT_S = 60.0
REST_S = 180.0
LOOK_S = 0.05
ASK_S = 10.0
CHUNK_MS = 20
PRICE = {"input_per_million": 0.15, "output_per_million": 0.60}
BUDGET_USD = 1_000_000
"""More than a run can spend: budgets are to be worked out, not to refuse."""
AT_ONCE = 8
BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, ConnectionError)


@dataclass
class Gateway:
    """One that runs. ``name`` is that of its instance, which keeps its folder from one start to the next."""

    name: str
    process: Child
    url: str
    log: Path
    key: str

    async def ledger(self) -> dict[str, Any] | None:
        """As it stands; None from a gateway that is not there."""
        with suppress(*BROKEN):
            async with (
                _session(self.url, self.key, ASK_S) as session,
                session.get("/v1/log-writer") as answer,
            ):
                return dict(await answer.json()) if answer.ok else None
        return None

    async def at_rest(self) -> None:
        """Returns once the sink has every row. Raises ``TimeoutError``."""
        async with asyncio.timeout(REST_S):
            while not _is_at_rest(await self.ledger()):  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(LOOK_S)

    async def not_ready(self) -> None:
        """Returns once its readiness says so, as a balancer sees it. Raises ``TimeoutError``."""
        async with asyncio.timeout(REST_S), _session(self.url, self.key, ASK_S) as session:
            while True:
                async with session.get("/health/readiness") as answer:
                    if answer.status == 503:
                        return
                await asyncio.sleep(LOOK_S)

    async def stop(self) -> dict[str, Any]:
        """SIGTERM, and how it ended. Raises ``TimeoutError``."""
        began = time.monotonic()
        self.process.send(signal.SIGTERM)
        status = await self.process.exit_status(EXIT_S)
        told = {"seconds": round(time.monotonic() - began, 2), "exit_status": status}
        return {**told, "report": self._report()}

    async def kill(self) -> dict[str, Any]:
        """kill -9, of all its workers at once: one that saw the others go would end in order."""
        self.end()
        return {"seconds": 0.0, "exit_status": await self.process.exit_status(EXIT_S), "report": None}

    def end(self) -> None:
        """SIGKILL, to everything that is there of it. Workers have sessions of their own."""
        if not self.process.is_running:
            return
        family = importlib.import_module("servers.base").family
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in family(self.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _report(self) -> dict[str, Any] | None:
        """The last one, which with several workers is their sum."""
        lines = [
            each for each in self.log.read_text(errors="replace").splitlines() if '"shutdown_report"' in each
        ]
        if not lines:
            return None
        report = json.loads(lines[-1])
        return {
            name: value for name, value in report.items() if name not in ("time", "level", "logger", "event")
        }


@dataclass
class Stage:
    """The provider is there; ``keys`` are those of the users, once they were made."""

    settings: Settings
    folder: Path
    place: Place
    provider: Child
    provider_url: str
    master_key: str = field(default_factory=lambda: f"tg-{secrets.token_hex(16)}")

    @asynccontextmanager
    async def gateway(
        self, name: str = "gateway", spool: str = "spill", port: int = 0, readiness_delay_s: float = 0.0
    ) -> AsyncIterator[Gateway]:
        """Listening; killed in the end if it is still there."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        config = folder / "gateway.json"
        config.write_text(json.dumps(self._sections(folder, spool, readiness_delay_s)))
        config.chmod(0o600)
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        command = (sys.executable, "-m", "gateway", "serve", "--config", str(config), "--port", str(port))
        async with child(name, *command, env=env, folder=folder) as process:
            url = str((await process.said("listening", START_S))["url"])
            gateway = Gateway(name, process, url, folder / f"{name}.log", self.master_key)
            try:
                yield gateway
            finally:
                gateway.end()

    def _sections(self, folder: Path, spool: str, readiness_delay_s: float) -> dict[str, Any]:
        """The configuration: JSON is YAML, too. All instances share the store, as they do the sink."""
        settings = self.settings
        local = {"type": "openai", "base_url": f"{self.provider_url}/v1", "api_key": "none"}
        return {
            "master_key": self.master_key,
            "workers": settings.workers,
            "log_writer_strategy": settings.log_writer,
            "budget_strategy": settings.budget_strategy,
            "sinks": {settings.sink: dict(self.place.section)},
            "spool": {"mode": spool, "path": str(folder / "spool")},
            "shutdown": {"readiness_delay_s": readiness_delay_s},
            "store": {"url": f"sqlite:///{self.folder / 'store' / 'gateway.db'}"},
            "providers": {"local": local},
            "pricing": {"local:fake": PRICE},
        }

    async def seen(self) -> list[dict[str, Any]]:
        """Every call that reached the provider."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.provider_url}/calls") as answer:
            return list(await answer.json())

    async def make_keys(self, url: str) -> dict[str, Any]:
        """As many users as VUs, each with a key of its own, and one more for all of them to share."""
        async with _session(url, self.master_key, ASK_S * 3) as session:
            budget = await _post(session, "/v1/budgets", {"max_usd": BUDGET_USD, "reset_every": None})
            turn = asyncio.Semaphore(AT_ONCE)

            async def make(user: str) -> str:
                async with turn:
                    await _post(session, "/v1/users", {"user_id": user, "budget_id": budget["id"]})
                    return str((await _post(session, "/v1/keys", {"name": user, "user_id": user}))["key"])

            own = [make(f"load-{number}") for number in range(self.settings.vus)]
            shared, *others = await asyncio.gather(make("load-shared"), *own)
        return {"shared": shared, "own": others}


@asynccontextmanager
async def stage(settings: Settings, folder: Path, place: Place, fake_port: int = 0) -> AsyncIterator[Stage]:
    """``folder`` has to be there, and empty."""
    flags = {
        "port": fake_port,
        "seed": settings.rng_seed,
        "delay-ms": settings.fake_delay_ms,
        "jitter-sigma": settings.fake_jitter_sigma,
        "delay-min-ms": settings.fake_delay_min_ms,
        "delay-max-ms": settings.fake_delay_max_ms,
        "chunk-ms": CHUNK_MS,
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = (sys.executable, str(ROOT / "load" / "fake_provider.py"), *words)
    async with child("provider", *command, env=os.environ, folder=folder) as process:
        url = str((await process.said("listening", START_S))["url"])
        yield Stage(settings, folder, place, process, url)


def _session(url: str, key: str, timeout_s: float) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    return aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {key}"}, timeout=timeout)


async def _post(session: aiohttp.ClientSession, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    async with session.post(path, json=body) as answer:
        if answer.status != 201:
            raise RuntimeError(f"POST {path}: {answer.status} {await answer.text()}")
        return dict(await answer.json())


def _is_at_rest(ledger: Mapping[str, Any] | None) -> bool:
    return ledger is not None and not any(ledger[name] for name in ("queued", "in_flight", "spooled"))
