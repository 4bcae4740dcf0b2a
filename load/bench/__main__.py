"""`make bench`: measures part after part, prints the table of promises, and writes it to load/results/.

TALLYGATE_BENCH_PARTS names the parts (of those below; `soak` only runs when it is named), _SECONDS the length
of one measurement, _ROUNDS how many of them make a median. `--beside CHECKOUT` compares with the gateway of
another checkout of this project, which has an environment in its `.venv`. Files are made below TMPDIR, which
names the disk to measure.

    cd load && ../.venv/bin/python -m bench
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import uvloop

from .calls import calls
from .core import core
from .cores import Cores
from .latency import latency
from .report import RESULTS, about, kept, write
from .setting import Setting, this_process_on
from .sinks import sinks
from .soak import soak
from .stopping import stopping
from .streams import streams
from .table import Section, goals, markdown
from .turns import say
from .variants import beside, budgets, spool
from .workers import workers

Part: TypeAlias = Callable[[Setting], Awaitable[Section]]

PARTS: Mapping[str, Part] = {
    "calls": calls,
    "latency": latency,
    "streams": streams,
    "core": core,
    "sinks": sinks,
    "stopping": stopping,
    "workers": workers,
    "soak": soak,
    "spool": spool,
    "budgets": budgets,
    "beside": beside,
}
ONLY_WHEN_NAMED = ("beside", "soak")
SECONDS = 2.0
ROUNDS = 5


def wanted(text: str) -> list[str]:
    """The parts that ``text`` names; all but the long ones when it names none. Raises ``SystemExit``."""
    names = text.replace(",", " ").split()
    if unknown := [name for name in names if name not in PARTS]:
        sys.exit(f"TALLYGATE_BENCH_PARTS: no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return names or [name for name in PARTS if name not in ONLY_WHEN_NAMED]


async def measure(names: Sequence[str], setting: Setting, told: Mapping[str, str]) -> list[Section]:
    """Part after part; what each found is shown, and kept, when it has ended."""
    found = []
    for name in names:
        say(f"{name} ...")
        section = replace(await PARTS[name](setting), commit=told["commit"])
        for table in section.tables:
            say(f"\n{markdown(table)}\n")
        write(told, kept(section, tuple(PARTS)))
        found.append(section)
    return found


def main(other: Path | None) -> None:
    cores = Cores.split(os.sched_getaffinity(0))
    names = wanted(os.environ.get("TALLYGATE_BENCH_PARTS") or ("beside" if other else ""))
    seconds = float(os.environ.get("TALLYGATE_BENCH_SECONDS") or SECONDS)
    rounds = int(os.environ.get("TALLYGATE_BENCH_ROUNDS") or ROUNDS)
    folder = Path(tempfile.mkdtemp(prefix="tallygate-bench-"))
    try:
        with this_process_on(cores.load):
            setting, told = Setting(folder, cores, seconds, rounds, other), about(cores, seconds, rounds)
            sections = uvloop.run(measure(names, setting, told))
    finally:
        shutil.rmtree(folder)
    if lines := [line for section in sections for line in section.lines]:
        say(f"\n{markdown(goals(lines))}\n")
    say(f"Written: {RESULTS / 'bench.md'}")


if __name__ == "__main__":
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_it_is)
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="another checkout to compare with")
    main(parser.parse_args().beside)
