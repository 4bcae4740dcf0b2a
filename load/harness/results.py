"""What comes of a run: its file, the page and the pictures made anew, and lines for whoever waits."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import page, plots, table


@dataclass
class Show:
    """Progress, as it goes."""

    name: str
    began: float = field(default_factory=time.monotonic)

    def __call__(self, text: str) -> None:
        seconds = int(time.monotonic() - self.began)
        print(f"[{self.name} {seconds // 60:02}:{seconds % 60:02}] {text}", flush=True)


def keep(result: Mapping[str, Any], label: str, folder: Path) -> Path:
    """Writes ``label``.json and makes the page of its commit's results anew."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{label}.json"
    path.write_text(json.dumps({"label": label, **result}, indent=1) + "\n", encoding="utf-8")
    page.write_page(folder, result["versions"]["commit"])
    return path


def clear(folder: Path) -> None:
    """Removes results, and nothing else that may be there."""
    for path in [*page.results_in(folder), *(folder / name for name in (page.PAGE, *page.PLOTS))]:
        path.unlink(missing_ok=True)


def draw(folder: Path, commit: str) -> None:
    """The pictures, where there is something to draw with."""
    if find_spec("matplotlib") is not None:
        plots.draw(folder, commit)
        page.write_page(folder, commit)


def summed_up(result: Mapping[str, Any]) -> list[str]:
    """A run in a few lines."""
    lines = []
    for name, told in result["scenarios"].items():
        latency = told["latency_ms"] or {}
        shares = ", ".join(f"{share} {latency.get(share, 0):.0f}" for share in ("p50", "p95", "p99", "p99.9"))
        lines.append(
            f"{name}: {told['calls']} calls, {told['failed']} failed, {told['per_second']}/s, {shares} ms"
        )
    if used := result["processes"].get("gateway"):
        lines.append("gateway: " + ", ".join(f"{name} {value}" for name, value in used.items()))
    lines += [
        f"{stop['how']} {stop['gateway']}: {stop['seconds']} s, exit status {stop['exit_status']}"
        for stop in result["stops"]
    ]
    told = result["coverage"]
    counts = ", ".join(f"{name} {told[name]}" for name in table.LOSSES)
    lines.append(f"coverage by id: {told['percent']:g} % of {told['promised']}; {counts}")
    return lines + [f"WRONG: {problem}" for problem in result["problems"]]


def stoppable() -> None:
    """Ctrl-C, SIGTERM and a terminal that closes cancel the task that calls this, once: a second Ctrl-C
    must not cut short the end of the children, which have sessions of their own."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not task.cancelling():
            print("Stopping ...", flush=True)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
