"""`make chaos`: gateways are stopped, killed, cut off and filled up; an oracle says what became of the rows.

Parts, by ``--parts`` or TALLYGATE_CHAOS_PARTS:
  kills    kill -9 at TALLYGATE_KILLS (50) random moments under load with ``write_ahead``, restart after each
  storm    random faults and ends, with ``spill`` and ``write_ahead``; TALLYGATE_CHAOS_MINUTES (10) for all
           sinks together
  outage   one sink down for TALLYGATE_OUTAGE_S (600) seconds at 200 calls a second with ``spill``
Further: TALLYGATE_CHAOS_SINKS, TALLYGATE_CHAOS_SEED. Exit status 1 if anything is off; then the logs stay.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_gateway import BATCHING, Life, World, world
from chaos_places import SINKS, disk_full
from processes import ROOT, ChildFailed

FOLDER = ROOT / ".chaos"
CLIENTS = 24
JUDGE_EVERY = 6
"""Lives of a storm."""
OUTAGE_RATE = 200.0
OUTAGE_CLIENTS = 64
OUTAGE_QUEUE = 2000
SAMPLES = 20
FLAT = 1.25
"""The most that an outage may grow the gateway, from its first quarter on."""
NUMBERS = ("answered", "interrupted", "rows", "missing", "duplicate", "unknown", "unequal", "crash_rows")


@dataclass
class Result:
    """One line of the table."""

    part: str
    sink: str
    kills: int = 0
    stops: int = 0
    verdict: Mapping[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


Part = Callable[[World, "Show"], Coroutine[Any, Any, Mapping[str, Any]]]


@dataclass
class Show:
    """Progress, as it goes."""

    name: str
    began: float = field(default_factory=time.monotonic)

    def __call__(self, text: str) -> None:
        seconds = int(time.monotonic() - self.began)
        print(f"[{self.name} {seconds // 60:02}:{seconds % 60:02}] {text}", flush=True)


# --- kills


async def kills(of: World, show: Show) -> Mapping[str, Any]:
    """kill -9 under load, again and again; now and then before the first call, while rows are recovered."""
    count = int(os.environ.get("TALLYGATE_KILLS", "50"))
    for number in range(1, count + 1):
        async with of.life("write_ahead") as life:
            await life.begin(CLIENTS)
            if of.rng.random() > 0.15:
                await life.reach(of.rng.randrange(1, 150))
            run = await life.kill()
            show(f"kill {number} of {count}, behind {run['promises']} promises")
    return await of.verdict()


# --- storm


def storm(minutes: float) -> Part:
    """Random faults for so long."""

    async def part(of: World, show: Show) -> Mapping[str, Any]:
        until = time.monotonic() + minutes * 60
        verdict: Mapping[str, Any] = {}
        while time.monotonic() < until:
            for _ in range(JUDGE_EVERY):
                await _stormy_life(of, show)
            verdict = await of.verdict()
            show("judged: " + ", ".join(f"{name} {verdict[name]}" for name in NUMBERS))
            if verdict["problems"]:
                break
        return verdict

    return part


async def _stormy_life(of: World, show: Show) -> None:
    rng = of.rng
    mode = rng.choice(("write_ahead", "spill"))
    begins_down = rng.random() < 0.2
    async with AsyncExitStack() as stack:
        if begins_down:
            await stack.enter_async_context(of.place.down())
        life = await stack.enter_async_context(of.life(mode))
        await life.begin(CLIENTS)
        told = ["down from the start"] if begins_down else []
        await life.reach(rng.randrange(1, 100))
        if begins_down and rng.random() < 0.5:
            return show(f"{mode}: {', '.join(told)}, {await _ended(life)}")
        if not begins_down:
            told = [await _one_fault(life) for _ in range(rng.randrange(0, 3))]
            if rng.random() < 0.4:
                name, fault = _drawn(life)
                await stack.enter_async_context(fault)
                told.append(f"{name} until the end")
                await life.reach(rng.randrange(1, 100), within_s=3)
        show(f"{mode}: {', '.join(told) or 'no fault'}, {await _ended(life)}")


async def _one_fault(life: Life) -> str:
    name, fault = _drawn(life)
    began = time.monotonic()
    async with fault:
        await life.reach(life.world.rng.randrange(1, 300), within_s=life.world.rng.uniform(0.3, 5))
    await life.reach(life.world.rng.randrange(1, 60), within_s=5)
    return f"{name} {time.monotonic() - began:.1f} s"


def _drawn(life: Life) -> tuple[str, Any]:
    faults = life.world.place.faults
    name = life.world.rng.choice((*faults, "disk_full"))
    return (name, faults[name]()) if name in faults else (name, _disk_fault(life))


@asynccontextmanager
async def _disk_fault(life: Life) -> AsyncIterator[None]:
    """While it lasts, rows may have to be given up; what was answered meanwhile has no journal."""
    life.is_journal_sound, life.may_abandon = False, True
    async with disk_full(life.process.pid):
        yield
    life.may_abandon = False


async def _ended(life: Life) -> str:
    rng = life.world.rng
    how = rng.choice(("kill -9", "SIGTERM", "SIGTERM twice"))
    if how == "kill -9":
        run = await life.kill()
    else:
        run = await life.end(rng.uniform(0, 1.5) if how == "SIGTERM twice" else None)
    return f"{how}: {run['promises']} promises, {len(run['abandoned'])} abandoned, {run['shed']} shed"


# --- outage


def outage(seconds: float) -> Part:
    """The sink is down for so long, and the calls go on."""

    async def part(of: World, show: Show) -> Mapping[str, Any]:
        batching = {**BATCHING, "max_queue_rows": OUTAGE_QUEUE, "max_rows": 500}
        async with of.life("spill", batching=batching) as life:
            await life.begin(OUTAGE_CLIENTS, rate=OUTAGE_RATE)
            await life.reach(int(OUTAGE_RATE * 2), within_s=30)
            sizes: list[float] = []
            async with of.place.down():
                for _ in range(SAMPLES):
                    run = await life.reach(10**9, within_s=seconds / SAMPLES)
                    sizes.append(resident_mb(life.process.pid))
                    show(f"down: {run['run']['promises']} calls, RSS {sizes[-1]:.0f} MB")
            run = await life.end()
            if run["abandoned"] or run["shed"]:
                of.complaints.append(f"{len(run['abandoned'])} abandoned, {run['shed']} shed")
            if max(sizes) > FLAT * sizes[SAMPLES // 4]:
                of.complaints.append(f"RSS grew from {sizes[SAMPLES // 4]:.0f} to {max(sizes):.0f} MB")
        return await of.verdict()

    return part


def resident_mb(pid: int) -> float:
    """Of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


# --- all of it


async def run_part(name: str, part: Part, sink: str, seed: int) -> Result:
    """One part on one sink; whatever goes wrong is in its result."""
    result = Result(name, sink)
    show = Show(f"{name} {sink}")
    folder = FOLDER / f"{name}-{sink}"
    folder.mkdir(parents=True)  # nothing else runs yet
    async with world(sink, folder, f"{seed} {name} {sink}") as of:
        try:
            result.verdict = await part(of, show)
        except (ChildFailed, TimeoutError) as error:
            result.problems.append(f"{type(error).__name__}: {error}")
        result.kills, result.stops = of.kills, of.stops
        result.problems += [*result.verdict.get("problems", ()), *of.complaints]
    for problem in result.problems:
        show(f"OFF: {problem}")
    return result


def table(results: list[Result]) -> None:
    """What became of everything, a line for each part and sink."""
    heads = ("part", "sink", "kills", "stops", *NUMBERS, "abandoned", "lost as allowed", "in order")
    rows: list[tuple[str, ...]] = [heads]
    for each in results:
        numbers = (str(each.verdict.get(name, "-")) for name in (*NUMBERS, "abandoned", "excused"))
        is_well = "NO" if each.problems else "yes"
        rows.append((each.part, each.sink, str(each.kills), str(each.stops), *numbers, is_well))
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    for row in rows:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))


async def chaos(parts: list[str], sinks: list[str], seed: int) -> list[Result]:
    """All parts on all sinks, one after the other."""
    minutes = float(os.environ.get("TALLYGATE_CHAOS_MINUTES", "10")) / len(sinks)
    seconds = float(os.environ.get("TALLYGATE_OUTAGE_S", "600"))
    known: dict[str, Part] = {"kills": kills, "storm": storm(minutes), "outage": outage(seconds)}
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # ends the children, too
    return [await run_part(name, known[name], sink, seed) for name in parts for sink in sinks]


def main() -> int:
    sys.path.insert(0, str(ROOT / "tests"))  # for the servers
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = os.environ.get("TALLYGATE_CHAOS_PARTS", "kills,storm")
    parser.add_argument("--parts", default=parts)
    parser.add_argument("--sinks", default=os.environ.get("TALLYGATE_CHAOS_SINKS", ",".join(SINKS)))
    drawn = os.environ.get("TALLYGATE_CHAOS_SEED") or random.SystemRandom().randrange(10**6)
    parser.add_argument("--seed", type=int, default=int(drawn))
    given = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    print(f"seed {given.seed}: TALLYGATE_CHAOS_SEED={given.seed} makes the same choices again", flush=True)
    results = asyncio.run(chaos(given.parts.split(","), given.sinks.split(","), given.seed))
    table(results)
    for each in results:
        for problem in each.problems:
            print(f"OFF: {each.part} on {each.sink}: {problem}")
    if not any(each.problems for each in results):
        shutil.rmtree(FOLDER)
        return 0
    print(f"The logs are in {FOLDER}.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
