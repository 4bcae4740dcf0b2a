"""`make load`: every part on every sink, in batches and one by one, and the results page anew.

Variables, each with its default:
  TALLYGATE_LOAD_SINKS          sqlite,postgres,mongo,clickhouse
  TALLYGATE_LOAD_STRATEGIES     batch,single
  TALLYGATE_LOAD_PARTS          k6,mixed,sigterm,kill,sink_killed,sink_frozen,sink_slow,rolling,soak
  TALLYGATE_LOAD_SECONDS        30, of each scenario, and of each outage
  TALLYGATE_LOAD_SOAK_SECONDS   600
  TALLYGATE_LOAD_RESULTS        load/results; the results there are removed first
Also VUS, RATES, RATE, WORKERS, BUDGET_STRATEGY and the provider's as for run_load_test.sh. Exit status 1 if
anything was wrong in any run.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import k6
from harness.homes import Home, home
from harness.page import commits_of, read_results
from harness.parts import PARTS
from harness.play import play
from harness.results import Show, clear, draw, keep, stoppable, summed_up
from harness.settings import SINKS, STRATEGIES, Settings, SettingsWrong, from_environment, seconds
from processes import ROOT

FOLDER = ROOT / ".load" / "all"
PREFIX = "TALLYGATE_LOAD_"
NOT_TAKEN = ("LOG_WRITER_STRATEGY", "TEST_DATABASE_URL", "DURATION", "RESULTS_DIR")


@dataclass(frozen=True)
class Plan:
    """What is to be played."""

    sinks: Sequence[str]
    strategies: Sequence[str]
    parts: Sequence[str]
    soak_s: float
    results: Path
    settings: Settings

    def runs(self, sink: str) -> Iterator[tuple[str, str]]:
        """Strategy and part. A file cannot freeze, and one soak for each sink is enough."""
        for strategy in self.strategies:
            for part in self.parts:
                if (sink, part) == ("sqlite", "sink_frozen"):
                    continue
                if part == "soak" and strategy != self.strategies[0]:
                    continue
                yield strategy, part

    def about_s(self) -> float:
        """How long it takes, roughly."""
        each = self.settings.duration_s
        known = {"k6": k6.planned_s(self.settings), "soak": self.soak_s, "rolling": 1.5 * each + 10}
        took = {
            part: known.get(part, each if part in ("mixed", "sigterm", "kill") else 2 * each)
            for part in PARTS
        }
        return sum(took[part] + 6 for sink in self.sinks for _, part in self.runs(sink))


def plan_of(environment: Mapping[str, str]) -> Plan:
    """Raises ``SettingsWrong``."""

    def chosen(name: str, known: Sequence[str]) -> list[str]:
        names = environment.get(f"{PREFIX}{name}", ",".join(known)).split(",")
        if strangers := [each for each in names if each not in known]:
            raise SettingsWrong(f"{PREFIX}{name} knows no {', '.join(strangers)}, but {', '.join(known)}")
        return names

    given = {name: value for name, value in environment.items() if name not in NOT_TAKEN}
    settings = from_environment({**given, "DURATION": environment.get(f"{PREFIX}SECONDS", "30")})
    warmup_s = settings.warmup_s if "WARMUP" in given else min(settings.warmup_s, settings.duration_s / 2)
    return Plan(
        sinks=chosen("SINKS", SINKS),
        strategies=chosen("STRATEGIES", STRATEGIES),
        parts=chosen("PARTS", list(PARTS)),
        soak_s=seconds(environment.get(f"{PREFIX}SOAK_SECONDS", "600")),
        results=Path(environment.get(f"{PREFIX}RESULTS", ROOT / "load" / "results")).resolve(),
        settings=replace(settings, warmup_s=warmup_s),
    )


async def play_all(plan: Plan) -> list[str]:
    """The labels of the runs in which something was wrong."""
    stoppable()
    total = sum(len(list(plan.runs(sink))) for sink in plan.sinks)
    ends = time.strftime("%H:%M", time.localtime(time.time() + plan.about_s()))
    print(f"{total} runs, about {plan.about_s() / 60:.0f} minutes: until {ends}", flush=True)
    wrong: list[str] = []
    done = 0
    for sink in plan.sinks:
        async with home(sink) as at:
            for strategy, part in plan.runs(sink):
                done += 1
                label = f"{sink}-{strategy}-{part}"
                show = Show(f"{done} of {total}, {label}")
                wrong += [label] * await _play(plan, at, strategy, part, label, show)
    commits = commits_of(read_results(plan.results))
    for commit in commits[-1:]:
        draw(plan.results, commit)
    return [*wrong, f"all, for the code was changed: {', '.join(commits)}"] if len(commits) > 1 else wrong


async def _play(plan: Plan, at: Home, strategy: str, part: str, label: str, show: Show) -> bool:
    """Whether something was wrong."""
    settings = replace(plan.settings, sink=at.sink, strategy=strategy)
    show(f"begins: {at.told}")
    result = await play(part, settings, at, FOLDER / label, show, soak_s=plan.soak_s)
    for line in summed_up(result):
        show(line)
    keep(result, label, plan.results)
    if not result["problems"]:
        shutil.rmtree(FOLDER / label)
    return bool(result["problems"])


def main() -> int:
    sys.path.insert(0, str(ROOT / "tests"))  # for the servers
    try:
        plan = plan_of(os.environ)
        clear(plan.results)
        wrong = asyncio.run(play_all(plan))
    except SettingsWrong as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("Stopped.", file=sys.stderr)
        return 130
    print(f"The page is {plan.results / 'results.md'}.")
    for label in wrong:
        print(f"WRONG: {label}; its logs are in {FOLDER / label}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
