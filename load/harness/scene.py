"""One run while it is played: its gateways, its calls, and what is wrong with it so far.

Takes the stage; gives a part what it works with. What a part finds wrong by itself goes to ``problems``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from harness.calls import Call
from harness.driver import Driver
from harness.settings import Settings
from harness.stage import Gateway, Stage
from harness.watch import Watch

NOT_ADMITTED = "usage_log_"
"""What the code of a call's refusal begins with that got no place; the rest is its reason in ``shed``."""


@dataclass
class Scene:
    """One run, and what came of it. ``unowed`` are requests without a right to a row. ``allowed`` are the
    codes with which calls may be refused, or their streams end."""

    settings: Settings
    stage: Stage
    watch: Watch
    file: TextIO
    show: Callable[[str], None]
    port: int = 0
    soak_s: float = 600.0
    calls: list[Call] = field(default_factory=list)
    stops: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unowed: Collection[str] = ()
    allowed: Collection[str] = ()
    current: Gateway | None = None

    @asynccontextmanager
    async def gateway(
        self, name: str = "gateway", spool: str = "spill", readiness_delay_s: float = 0.0
    ) -> AsyncIterator[Gateway]:
        """One that is watched from now on."""
        async with self.stage.gateway(name, spool, self.port, readiness_delay_s) as gateway:
            self.watch.pids[name] = gateway.process.pid
            self.current = gateway
            yield gateway

    async def ledger(self) -> Mapping[str, Any] | None:
        """Of the gateway that started last."""
        return await self.current.ledger() if self.current else None

    def driver(self, scenario: str, urls: list[str]) -> Driver:
        """Its calls are the run's."""
        settings = self.settings
        driver = Driver(scenario, urls, self.stage.master_key, settings.rate, settings.rng_seed, self.file)
        self.calls = driver.calls
        return driver

    async def stop(self, gateway: Gateway) -> None:
        """SIGTERM. Whatever was going on, it has to end well: every row in its place."""
        told = await gateway.stop()
        self.stops.append({"gateway": gateway.name, "how": "SIGTERM", **told})
        report = told["report"]
        if report is None:
            self.problems.append(f"{gateway.name} left with {told['exit_status']} and no report")
            return
        wrong = [name for name in ("unaccounted", "abandoned", "dead_lettered") if report.get(name)]
        if told["exit_status"] or wrong or self._is_wrong(report["shed"]):
            self.problems.append(f"{gateway.name} left with {told['exit_status']}: {report}")

    def _is_wrong(self, shed: Mapping[str, int]) -> bool:
        """Each call without a place is one that its client was told of by that name, and could be."""
        codes = [call.code for call in self.calls if call.code in self.allowed and call.code is not None]
        told = Counter(code.removeprefix(NOT_ADMITTED) for code in codes if code.startswith(NOT_ADMITTED))
        return Counter(shed) != told

    def expect_no_failures(self, why: str = "", allowed: Collection[str] = ()) -> None:
        """Up to now, but for calls that ended with an ``allowed`` code."""
        ends = ("refused", "broken", "unreached")
        if failed := [call for call in self.calls if call.outcome in ends and call.code not in allowed]:
            some = ", ".join(
                f"{each.request_id} {each.outcome} {each.status} {each.code}" for each in failed[:5]
            )
            self.problems.append(f"{len(failed)} calls failed{why}: {some}")

    def answered_since(self, since_ms: float) -> bool:
        """Whether a call was answered that was sent after this moment of the wall clock."""
        sent_since = (call for call in reversed(self.calls) if call.sent_ms >= since_ms)
        return any(call.outcome == "answered" for call in sent_since)


def now_ms() -> float:
    """The wall clock, as calls have it."""
    return time.time() * 1000
