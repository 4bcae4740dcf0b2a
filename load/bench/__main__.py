"""`make bench`: measures part after part, prints the table of promises, and writes it to load/results/.

TALLYGATE_BENCH_PARTS names the parts (of those below; `soak` only runs when it is named), _SECONDS the length
of one measurement, _ROUNDS how many of them make a median. `--beside CHECKOUT` compares with the gateway of
another checkout of this project, which has an environment in its `.venv`.

    cd load && ../.venv/bin/python -m bench
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import uvloop

from .calls import calls
from .cores import Cores
from .latency import latency
from .report import about, kept, write
from .setting import Setting, this_process_on
from .table import Section, goals, markdown
from .turns import say
from .variants import beside, budgets, spool

Part: TypeAlias = Callable[[Setting], Awaitable[Section]]

PARTS: Mapping[str, Part] = {
    "calls": calls,
    "latency": latency,
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


async def measure(names: Sequence[str], setting: Setting) -> list[Section]:
    found = []
    for name in names:
        say(f"{name} ...")
        found.append(await PARTS[name](setting))
        for table in found[-1].tables:
            say(f"\n{markdown(table)}\n")
    return found


def main(other: Path | None) -> None:
    cores = Cores.split(os.sched_getaffinity(0))
    names = wanted(os.environ.get("TALLYGATE_BENCH_PARTS") or ("beside" if other else ""))
    seconds = float(os.environ.get("TALLYGATE_BENCH_SECONDS") or SECONDS)
    rounds = int(os.environ.get("TALLYGATE_BENCH_ROUNDS") or ROUNDS)
    folder = Path(tempfile.mkdtemp(prefix="tallygate-bench-"))
    try:
        with this_process_on(cores.load):
            sections = uvloop.run(measure(names, Setting(folder, cores, seconds, rounds, other)))
    finally:
        shutil.rmtree(folder)
    say(f"\n{markdown(goals(line for section in sections for line in section.lines))}\n")
    say(f"Written: {write(about(cores, seconds, rounds), kept(sections, tuple(PARTS)))}")


if __name__ == "__main__":
    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_it_is)
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="another checkout to compare with")
    main(parser.parse_args().beside)
