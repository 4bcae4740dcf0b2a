"""One run from beginning to end: a part is played in an empty place, and then its rows are counted."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from processes import ChildFailed
from usage_rows import read_rows, stored_rows

from harness.calls import read_calls
from harness.coverage import compare
from harness.homes import Home
from harness.numbers import by_scenario
from harness.parts import PARTS
from harness.scene import Scene
from harness.settings import Settings
from harness.stage import Stage, stage
from harness.versions import machine, versions
from harness.watch import Watch

LINES = "calls.jsonl"


async def play(
    part: str,
    settings: Settings,
    home: Home,
    folder: Path,
    show: Callable[[str], None],
    **options: Any,
) -> dict[str, Any]:
    """The result of ``part``, as it goes to JSON; whatever goes wrong is among its problems. ``options`` are
    those of ``Scene`` and of the provider's port."""
    _empty(folder)
    fake_port = options.pop("fake_port", 0)
    async with (
        home.place(folder, by_wire=part == "sink_slow") as place,
        stage(settings, folder, place, fake_port) as around,
    ):
        with (folder / LINES).open("a", encoding="utf-8") as file:
            watch = Watch(ledger=_nobody)
            scene = Scene(settings, around, watch, file, show, **options)
            watch.ledger = scene.ledger
            watch.pids |= {"provider": around.provider.pid}
            if home.pid:
                watch.pids["server"] = home.pid
            try:
                async with watch.running():
                    await PARTS[part](scene)
            except (ChildFailed, TimeoutError, RuntimeError, OSError, ExceptionGroup) as error:
                scene.problems += _named(error)
        return await _counted(part, scene, around, home)


async def _counted(part: str, scene: Scene, around: Stage, home: Home) -> dict[str, Any]:
    """What the file of ids, the provider's list and the sink say."""
    calls = list(read_calls(around.folder / LINES)) if (around.folder / LINES).exists() else []
    if len(calls) != len(scene.calls):
        scene.problems.append(f"{len(scene.calls)} calls were made, {len(calls)} have a line")
    seen = await around.seen()
    stored = await asyncio.to_thread(stored_rows, around.place.where)
    rows = await asyncio.to_thread(read_rows, around.place.where)
    coverage = compare(calls, seen, rows, scene.unowed)
    provider_ms = {each["request_id"]: each["took_ms"] for each in seen if each["took_ms"] is not None}
    return {
        "part": part,
        "sink": scene.settings.sink,
        "strategy": scene.settings.strategy,
        "server": home.told,
        "versions": versions(),
        "machine": machine(),
        "settings": scene.settings.told(),
        "scenarios": by_scenario(calls, provider_ms) if calls else {},
        "coverage": {**coverage.told(), "stored_rows": len(rows) if stored is None else stored},
        "processes": scene.watch.told(),
        "stops": scene.stops,
        **({"more": scene.more} if scene.more else {}),
        "problems": [*scene.problems, *coverage.problems()],
        "samples": scene.watch.samples,
    }


def _named(error: Exception) -> list[str]:
    """What went wrong; while calls are made, it comes in a group with theirs."""
    if isinstance(error, ExceptionGroup):
        return [line for each in error.exceptions for line in _named(each)]
    return [f"{type(error).__name__}: {error}"]


async def _nobody() -> Mapping[str, Any] | None:
    return None


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "store").mkdir(parents=True)
