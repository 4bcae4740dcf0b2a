"""What happens in a run: each part takes a scene and plays it to its end.

A part starts its gateways, has them called, does to them what its name says and stops them. The rows are
counted afterwards, the same for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

from harness import k6
from harness.scene import Scene, now_ms
from harness.stage import REST_S, Gateway

FLAT = 1.25
"""The most that a soak may grow the gateway after its first quarter."""
SHORTEST_SOAK_S = 60.0
"""A shorter one says nothing about growth."""
LOOK_S = 0.05
NOTICED_S = 2.0
"""``shutdown.readiness_delay_s`` of instances behind a balancer, which asks more often than that."""
READ_ON_S = 10.0
"""A stream whose client left was read to its end, and its row committed, so many seconds later."""
REFUSED_BY_SINGLE = ("usage_log_sink_down", "usage_not_durable")
"""What `single` says while its sink is away: calls get no place once the breaker is open, and the answer of
one whose row could not be committed is withheld."""


Part = Callable[[Scene], Coroutine[Any, Any, None]]


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
    """kill -9 under load, in batches with the spool as a journal: the next start has to find everything."""
    spool = "write_ahead" if scene.settings.strategy == "batch" else "spill"
    async with scene.gateway(spool=spool) as gateway:
        driver = scene.driver("kill", [gateway.url])
        async with driver.calling():
            await asyncio.sleep(scene.settings.duration_s)
            scene.expect_no_failures(" before kill -9")
            scene.more["running_at_signal"] = len(driver.running)
            if scene.settings.strategy == "single":
                scene.unowed = _interrupted(scene)
            told = await gateway.kill()
            scene.stops.append({"gateway": gateway.name, "how": "kill -9", **told})
    async with scene.gateway(spool=spool) as gateway:
        await gateway.at_rest()
        await scene.stop(gateway)


def _interrupted(scene: Scene) -> set[str]:
    """Requests that may have no row after kill -9 without a journal: `single` commits a row before its call
    is answered, and promises rows of answered calls alone (docs/guarantees.md). A client that hung up may
    have done so before the rest of its stream was read."""
    late = now_ms() - READ_ON_S * 1000
    return {
        call.request_id
        for call in scene.calls
        if call.outcome == "waiting" or (call.outcome == "left" and call.done_ms > late)
    }


async def rolling(scene: Scene) -> None:
    """Two instances before one sink; each is stopped, taken out by a balancer, started and taken in again. No
    call may fail: while readiness says 503 and the balancer has yet to notice, a gateway serves on. Without
    ``readiness_delay_s`` a call that is just being sent meets a connection that is just being closed, which
    HTTP cannot exclude, and POST cannot be sent again blindly."""
    async with AsyncExitStack() as stack:

        async def start(name: str) -> Gateway:
            return await stack.enter_async_context(scene.gateway(name, readiness_delay_s=NOTICED_S))

        running = [await start(name) for name in ("first", "second")]
        urls = [gateway.url for gateway in running]
        async with scene.driver("rolling", urls).calling():
            for number, gateway in enumerate(running):
                await asyncio.sleep(scene.settings.duration_s / 2)
                stopping = asyncio.create_task(scene.stop(gateway))
                await gateway.not_ready()
                urls.remove(gateway.url)
                await stopping
                running[number] = await start(gateway.name)
                urls.append(running[number].url)
            await asyncio.sleep(scene.settings.duration_s / 2)
        scene.expect_no_failures()
        for gateway in running:
            await scene.stop(gateway)


# --- the sink


def outage(fault: str) -> Part:
    """The sink is ``fault`` (killed, frozen, slow) for a while, and then well again. With ``single`` calls
    may be refused from then on until it was found well; such a call has no row, or one that comes later."""

    async def part(scene: Scene) -> None:
        befall = scene.stage.place.faults.get(fault)
        if befall is None:
            raise RuntimeError(f"this sink cannot be {fault}: a file, or a server that is the caller's")
        pause = scene.settings.duration_s / 2
        async with scene.gateway() as gateway:
            async with scene.driver(f"sink_{fault}", [gateway.url]).calling():
                await asyncio.sleep(pause)
                scene.expect_no_failures(" before the outage")
                async with befall():
                    scene.show(f"the sink is {fault}")
                    await asyncio.sleep(scene.settings.duration_s)
                healed = time.monotonic()
                await _answers_again(scene, now_ms())
                scene.more["answers_after_s"] = round(time.monotonic() - healed, 2)
                await asyncio.sleep(pause)
            await gateway.at_rest()
            scene.more["at_rest_after_s"] = round(time.monotonic() - healed, 2)
            scene.allowed = REFUSED_BY_SINGLE if scene.settings.strategy == "single" else ()
            scene.expect_no_failures(allowed=scene.allowed)
            await scene.stop(gateway)

    return part


async def _answers_again(scene: Scene, since_ms: float) -> None:
    """Raises ``TimeoutError``."""
    async with asyncio.timeout(REST_S):
        while not scene.answered_since(since_ms):  # noqa: ASYNC110  # calls have no event
            await asyncio.sleep(LOOK_S)


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
