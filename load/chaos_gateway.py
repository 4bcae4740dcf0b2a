"""One sink's world in `make chaos`: a gateway that is started again and again, a provider, and the oracle.

Takes a place and a folder; gives lives of the gateway, one after the other, each ended on purpose, and the
oracle's word about all of them. Imports nothing of the gateway's code.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from chaos_places import Place, opened
from obligations import PRICE
from processes import OURS, ROOT, START_S, Child, ChildFailed, child, provider

KEY = "tg-chaos-master-key"
EXIT_S = 30.0
REPLY_S = 200.0
BATCHING = {
    "linger_s": 0.05,
    "max_rows": 50,
    "max_queue_rows": 400,
    "attempt_timeout_s": 1.0,
    "batch_deadline_s": 3.0,
}
"""Small and hasty, so that within seconds all happens that else takes minutes."""
SHUTDOWN = {"drain_s": 2, "pump_s": 1, "stop_deadline_s": 3, "cancel_grace_s": 0.5}
STREAMS = {"after_disconnect_s": 5}


class Oracle:
    """The other side of oracle.py."""

    def __init__(self, process: Child) -> None:
        self._process = process
        self._numbers = itertools.count(1)

    async def do(self, what: str, **order: Any) -> dict[str, Any]:
        """One order and its answer. Raises ``ChildFailed``."""
        number = next(self._numbers)
        self._process.tell(json.dumps({"do": what, "n": number, **order}))
        reply = await self._process.said(f"reply-{number}", REPLY_S)
        if "error" in reply:
            raise ChildFailed(f"the oracle cannot {what}: {reply['error']}")
        return reply


@dataclass
class World:
    """Everything around the gateway of one sink. ``complaints`` are what else was wrong than rows."""

    place: Place
    folder: Path
    provider_url: str
    oracle: Oracle
    rng: Random
    complaints: list[str] = field(default_factory=list)
    kills: int = 0
    stops: int = 0
    lives: int = 0

    @asynccontextmanager
    async def life(self, mode: str, **sections: Any) -> AsyncIterator[Life]:
        """The gateway, listening; killed in the end if nobody ended it."""
        self.lives += 1
        name = f"gateway-{self.lives}"
        config = self.folder / f"{name}.json"
        config.write_text(json.dumps({**self._sections(mode), **sections}))
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        command = (sys.executable, "-m", "gateway", "serve", "--config", str(config), "--port", "0")
        async with child(name, *command, env=env, folder=self.folder) as process:
            url = str((await process.said("listening", START_S))["url"])
            yield Life(self, process, url, mode, self.folder / f"{name}.log")

    def _sections(self, mode: str) -> dict[str, Any]:
        """The configuration: JSON is YAML, too."""
        local = {"type": "openai", "base_url": f"{self.provider_url}/v1", "api_key": "sk-none"}
        return {
            "master_key": KEY,
            "log_writer_strategy": f"batch:{self.place.sink}",
            "sinks": {self.place.sink: self.place.section},
            "spool": {"mode": mode, "path": str(self.folder / "data" / "spool")},
            "batching": BATCHING,
            "shutdown": SHUTDOWN,
            "streams": STREAMS,
            "providers": {"local": local},
            "pricing": {"local:fake": PRICE},
        }

    async def verdict(self) -> dict[str, Any]:
        """After a life without faults everything is in its place."""
        async with self.life("write_ahead") as life:
            healed = await self.oracle.do("heal", url=life.url)
            if healed["outcome"] != "answered":
                self.complaints.append(f"the fresh call was {healed['outcome']}")
            await life.stop()
        return await self.oracle.do("judge", where=self.place.where)


@dataclass
class Life:
    """One run of the gateway."""

    world: World
    process: Child
    url: str
    mode: str
    log: Path
    is_journal_sound: bool = True
    may_abandon: bool = False

    async def begin(self, clients: int, rate: float = 0.0) -> None:
        """The oracle's clients call."""
        is_journalled = self.mode == "write_ahead"
        await self.world.oracle.do(
            "begin", url=self.url, clients=clients, is_journalled=is_journalled, rate=rate
        )

    async def reach(self, calls: int, within_s: float = 20.0) -> Mapping[str, Any]:
        """So many more calls end."""
        return await self.world.oracle.do("reach", calls=calls, within_s=within_s)

    async def kill(self) -> Mapping[str, Any]:
        """kill -9, and how the run stands then."""
        self.process.send(signal.SIGKILL)
        self.world.kills += 1
        await self.process.exit_status(EXIT_S)
        return await self.world.oracle.do("end", ending="killed", is_journalled=self.is_journal_sound)

    async def stop(self, again_after_s: float | None = None) -> int:
        """SIGTERM, and a second one if told so; the exit status."""
        self.world.stops += 1
        self.process.send(signal.SIGTERM)
        if again_after_s is not None:
            await asyncio.sleep(again_after_s)
            self.process.send(signal.SIGTERM)
        try:
            status = await self.process.exit_status(EXIT_S)
        except TimeoutError:
            self._complain(f"did not stop within {EXIT_S:.0f} s")
            self.process.send(signal.SIGKILL)
            status = await self.process.exit_status(EXIT_S)
        self._look_at(status)
        return status

    async def end(self, again_after_s: float | None = None) -> Mapping[str, Any]:
        """Stop, and how the run stands then."""
        await self.stop(again_after_s)
        abandoned = [each for line in self.lines("rows_abandoned") for each in line["ids"]]
        shed = sum(sum(line["shed"].values()) for line in self.lines("shutdown_report"))
        told = {"abandoned": abandoned, "may_abandon": self.may_abandon, "shed": shed}
        return await self.world.oracle.do("end", ending="stopped", **told)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What the gateway said so far under this name."""
        found = []
        for text in self.log.read_text(errors="replace").splitlines():
            if text.startswith("{") and f'"{event}"' in text:
                line = json.loads(text)
                found += [line] if line.get("event") == event else []
        return found

    def _look_at(self, status: int) -> None:
        reports = self.lines("shutdown_report")
        if len(reports) != 1:
            return self._complain(f"exit {status}, with {len(reports)} shutdown reports")
        (report,) = reports
        if status != (3 if report["abandoned"] else 0):
            self._complain(f"exit {status}, with {report['abandoned']} abandoned")
        if report["unaccounted"] or report["queued"] or report["in_flight"]:
            self._complain(f"the report does not add up: {report}")
        for text in self.log.read_text(errors="replace").splitlines():
            if "Traceback" in text:
                self._complain(f"stderr: {text[:300]}")

    def _complain(self, what: str) -> None:
        self.world.complaints.append(f"{self.log.name}: {what}")


@asynccontextmanager
async def world(sink: str, folder: Path, seed: str) -> AsyncIterator[World]:
    """A place, a provider and an oracle for one sink."""
    rng = Random(seed)
    oracle = (sys.executable, str(ROOT / "load" / "oracle.py"), "--key", KEY, "--seed", seed)
    async with (
        opened(sink, folder, rng) as place,
        provider(folder) as provider_url,
        child("oracle", *oracle, "--provider", provider_url, env=os.environ, folder=folder) as process,
    ):
        yield World(place, folder, provider_url, Oracle(process), rng)
