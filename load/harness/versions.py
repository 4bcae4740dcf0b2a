"""What ran: the commit, the programs and the machine."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from processes import ROOT

from harness import k6

PACKAGES = ("aiohttp", "uvloop", "asyncpg", "motor", "pymongo", "clickhouse-connect")
RESULTS = "load/results"
"""Left out when asking whether the tree is that of its commit: they are what a run changes."""


def versions() -> dict[str, str]:
    """By name; a package that is not installed is left out."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    if program := k6.program():
        found["k6"] = _said([program, "version"]).partition(" (")[0].removeprefix("k6 ")
    return {"commit": commit(), **found}


def commit() -> str:
    """The whole id, with ``-dirty`` when files differ from it; ``unknown`` outside of a clone."""
    found = _said(["git", "rev-parse", "HEAD"])
    changed = _said(["git", "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{RESULTS}"])
    return f"{found}-dirty" if found and changed else found or "unknown"


def machine() -> dict[str, str | int]:
    """What the numbers depend on most."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
    }


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _said(command: Sequence[str]) -> str:
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return ""
