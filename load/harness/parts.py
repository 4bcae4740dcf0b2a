"""What happens in a run: each part takes a scene and plays it to its end.

A part starts its gateways, has them called, does to them what its name says and stops them. What it finds
wrong by itself goes to ``problems``; the rows are counted afterwards, the same for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from harness import k6
from harness.calls import Call
from harness.driver import Driver
from harness.settings import Settings
from harness.stage import Gateway, Stage
from harness.watch import Watch

FLAT = 1.25
"""The most that a soak may grow the gateway after its first quarter."""
SHORTEST_SOAK_S = 60.0
"""A shorter one says nothing about growth."""


@dataclass
class Scene:
    """One run, and what came of it. ``only_answered``: no other call is owed a row."""

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
    only_answered: bool = False
    current: Gateway | None = None

    @asynccontextmanager
    async def gateway(self, name: str = "gateway", spool: str = "spill") -> AsyncIterator[Gateway]:
        """One that is watched from now on."""
        async with self.stage.gateway(name, spool, self.port) as gateway:
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
        wrong = [
            name for name in ("unaccounted", "abandoned", "shed", "dead_lettered") if _any(report.get(name))
        ]
        if told["exit_status"] or wrong:
            self.problems.append(f"{gateway.name} left with {told['exit_status']}: {report}")

    def expect_no_failures(self, why: str = "") -> None:
        """Up to now."""
        if failed := [call for call in self.calls if call.outcome in ("refused", "broken", "unreached")]:
            some = ", ".join(f"{call.request_id} {call.outcome} {call.status}" for call in failed[:5])
            self.problems.append(f"{len(failed)} calls failed{why}: {some}")


Part = Callable[[Scene], Coroutine[Any, Any, None]]


def _any(value: Any) -> bool:
    return any(value.values()) if isinstance(value, dict) else bool(value)


# --- nothing happens


async def k6_scenarios(scene: Scene) -> None:
    """Warm-up, distinct users, one user, steady rates: see scenarios.js."""
    async with scene.gateway() as gateway:
        keys = await scene.stage.make_keys(gateway.url)
        scene.show(f"k6 for about {k6.planned_s(scene.settings):.0f} s")
        run = await k6.run(scene.settings, gateway.url, keys, scene.stage.folder, scene.watch)
        scene.calls = run.calls
        scene.problems += run.problems()
        scene.more |= {"k6_iterations": run.iterations, "k6_dropped": run.dropped}
        scene.expect_no_failures()
        await scene.stop(gateway)


async def mixed(scene: Scene) -> None:
    """Streams, plain calls and clients that hang up, at a steady rate."""
    async with scene.gateway() as gateway:
        async with scene.driver("mixed", [gateway.url]).calling():
            await asyncio.sleep(scene.settings.duration_s)
        scene.expect_no_failures()
        await scene.stop(gateway)


async def soak(scene: Scene) -> None:
    """The same for long."""
    async with scene.gateway() as gateway:
        async with scene.driver("soak", [gateway.url]).calling():
            await asyncio.sleep(scene.soak_s)
        scene.expect_no_failures()
        await scene.stop(gateway)
    _expect_flat(scene)


def _expect_flat(scene: Scene) -> None:
    sizes = [each["gateway"]["rss_mb"] for each in scene.watch.samples if "gateway" in each]
    if scene.soak_s >= SHORTEST_SOAK_S and max(sizes) > FLAT * sizes[len(sizes) // 4]:
        scene.problems.append(f"RSS grew from {sizes[len(sizes) // 4]} MB at a quarter to {max(sizes)} MB")


# --- signals


async def sigterm(scene: Scene) -> None:
    """Under load; the calls go on until the gateway has left."""
    async with scene.gateway() as gateway:
        driver = scene.driver("sigterm", [gateway.url])
        async with driver.calling():
            await asyncio.sleep(scene.settings.duration_s)
            scene.expect_no_failures(" before SIGTERM")
            scene.more["running_at_signal"] = len(driver.running)
            await scene.stop(gateway)
    if broken := [call.request_id for call in scene.calls if call.outcome == "broken"]:
        scene.problems.append(f"{len(broken)} answers were cut short: {', '.join(broken[:5])}")


async def kill(scene: Scene) -> None:
    """kill -9 under load, in batches with the spool as a journal: the next start has to find everything.
    ``single`` has no journal, and owes no row to a call that had no answer yet."""
    spool = "write_ahead" if scene.settings.strategy == "batch" else "spill"
    scene.only_answered = scene.settings.strategy == "single"
    async with scene.gateway(spool=spool) as gateway:
        driver = scene.driver("kill", [gateway.url])
        async with driver.calling():
            await asyncio.sleep(scene.settings.duration_s)
            scene.expect_no_failures(" before kill -9")
            scene.more["running_at_signal"] = len(driver.running)
            told = await gateway.kill()
            scene.stops.append({"gateway": gateway.name, "how": "kill -9", **told})
    async with scene.gateway(spool=spool) as gateway:
        await gateway.at_rest()
        await scene.stop(gateway)


async def rolling(scene: Scene) -> None:
    """Two instances before one sink; each is taken out, stopped, started and taken in again."""
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(scene.gateway(name)) for name in ("first", "second")]
        urls = [gateway.url for gateway in running]
        async with scene.driver("rolling", urls).calling():
            for number, gateway in enumerate(running):
                await asyncio.sleep(scene.settings.duration_s / 2)
                urls.remove(gateway.url)
                await scene.stop(gateway)
                running[number] = await stack.enter_async_context(scene.gateway(gateway.name))
                urls.append(running[number].url)
            await asyncio.sleep(scene.settings.duration_s / 2)
        scene.expect_no_failures()
        for gateway in running:
            await scene.stop(gateway)


# --- the sink


def outage(fault: str) -> Part:
    """The sink is ``fault`` (killed, frozen, slow) for a while, and then well again. With ``single``
    calls may be refused meanwhile."""

    async def part(scene: Scene) -> None:
        befall = scene.stage.place.faults[fault]
        pause = scene.settings.duration_s / 2
        async with scene.gateway() as gateway:
            async with scene.driver(f"sink_{fault}", [gateway.url]).calling():
                await asyncio.sleep(pause)
                async with befall():
                    scene.show(f"the sink is {fault}")
                    await asyncio.sleep(scene.settings.duration_s)
                healed = time.monotonic()
                await asyncio.sleep(pause)
            await gateway.at_rest()
            scene.more["at_rest_after_s"] = round(time.monotonic() - healed, 2)
            if scene.settings.strategy == "batch":
                scene.expect_no_failures()
            await scene.stop(gateway)

    return part


PARTS: Mapping[str, Part] = {
    "k6": k6_scenarios,
    "mixed": mixed,
    "sigterm": sigterm,
    "kill": kill,
    "sink_killed": outage("killed"),
    "sink_frozen": outage("frozen"),
    "sink_slow": outage("slow"),
    "rolling": rolling,
    "soak": soak,
}
"""In the order in which `make load` plays them."""
