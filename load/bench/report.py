"""Where the results are kept, and on what they were measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from processes import ROOT

from .cores import Cores
from .table import Section, from_plain, page, plain

RESULTS = ROOT / "load" / "results"
PACKAGES = ("aiohttp", "uvloop", "pydantic", "asyncpg")


def about(cores: Cores, seconds: float, rounds: int) -> dict[str, str]:
    """Commit, versions, machine, and how it was measured."""
    versions = ", ".join(f"{name} {version_of(name)}" for name in PACKAGES)
    return {
        "commit": commit(),
        "versions": f"Python {platform.python_version()}, {versions}",
        "machine": f"{processor()}, {os.cpu_count()} CPUs, {memory_gb():.0f} GB, Linux {platform.release()}",
        "cores": core_text(cores),
        "figures": f"medians of {rounds} rounds of {seconds:g} s, in turn; ratios: medians of each round's",
    }


def core_text(cores: Cores) -> str:
    if cores.are_shared:
        return "one for all, so that only figures per CPU second mean anything"
    return (
        f"{_listed(cores.measured)} for the server that is measured,"
        f" {_listed(cores.load)} for load generator, provider and databases"
    )


def _listed(numbers: frozenset[int]) -> str:
    return "CPU " + ", ".join(map(str, sorted(numbers)))


def commit() -> str:
    """The checkout's, and whether it was changed since."""

    def git(*arguments: str) -> str:
        found = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=False)
        return found.stdout.strip()

    is_changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!load/results")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" and changes" if is_changed else "")


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def kept(section: Section, order: Sequence[str]) -> list[Section]:
    """``section``, and of those measured before the ones that it does not replace."""
    path = RESULTS / "bench.json"
    before = json.loads(path.read_text())["sections"] if path.exists() else []
    found = {each["name"]: from_plain(each) for each in before} | {section.name: section}
    return [found[name] for name in order if name in found]


def write(about: Mapping[str, str], sections: Sequence[Section]) -> None:
    """`bench.json` and `bench.md`."""
    RESULTS.mkdir(exist_ok=True)
    told = {"about": dict(about), "sections": [plain(each) for each in sections]}
    (RESULTS / "bench.json").write_text(json.dumps(told, indent=1) + "\n")
    (RESULTS / "bench.md").write_text(page(about, sections))
