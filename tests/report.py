"""Printed at the end of `make test`: which case held on which sink, and which known faults were noticed.

Takes the junit XML of the runs in reports/; gives the matrix of case by sink and the table of mutations, also
as reports/matrix.txt. Exit status 1 if a case that a sink owes has no test there, or a test of a case is red.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPORTS = Path(__file__).resolve().parents[1] / "reports"
FAULTS = Path(__file__).resolve().parent / "mutations"
SINKS = ("memory", "sqlite", "postgres", "mongo+motor", "mongo+pymongo", "clickhouse")
COLUMNS = ("core", *SINKS, "process")
SERVERS = SINKS[2:]

CORE = ("core",)
PROCESS = ("process",)
EACH_DURABLE = "processes of their own, on each durable sink in turn"
ONLY_SERVERS = "no server, no wire: the same fault is a wrapper (18, 19) or another process (43, 44)"
ONLY_CLICKHOUSE = "only ClickHouse's window forgets a batch"
MONGO_REAL = "needs a real mongod: runs when MONGO_URL is given"


@dataclass(frozen=True)
class Case:
    """One case: where it is owed, and why not elsewhere."""

    number: int
    name: str
    owed: tuple[str, ...]
    why_not: str = "the core's own: the same whatever the sink"
    also: tuple[str, ...] = ()


CASES = (
    Case(1, "queued_rows_flushed_on_stop", (*CORE, *SINKS)),
    Case(2, "in_flight_batch_survives_stop", (*CORE, *SINKS)),
    Case(3, "stop_deadline_then_cancel", CORE),
    Case(4, "stop_when_never_started", CORE),
    Case(5, "stop_deadline_with_uncancellable_flush", CORE),
    Case(6, "stop_twice_concurrently", CORE),
    Case(7, "stop_caller_cancelled", CORE),
    Case(8, "drain_task_cancelled", CORE),
    Case(9, "cancel_at_every_step_collector", CORE),
    Case(10, "cancel_at_every_step_flush", (*CORE, *SINKS)),
    Case(11, "cancel_reserve_waiting_for_room", CORE),
    Case(12, "getter_done_then_cancelled", CORE),
    Case(13, "put_during_stop", CORE),
    Case(14, "put_after_stop", CORE),
    Case(15, "put_before_start", CORE),
    Case(16, "double_start", CORE),
    Case(17, "start_with_sink_down", (*CORE, *SINKS[1:]), "memory is never down"),
    Case(18, "fails_n_then_recovers", (*CORE, *SINKS)),
    Case(19, "ack_lost_after_commit", (*CORE, *SINKS)),
    Case(20, "commit_unknown_then_deadline", (*CORE, *SINKS)),
    Case(21, "reset_mid_request", SERVERS, ONLY_SERVERS, also=("fails_is_given_up_in_time",)),
    Case(22, "server_sigkilled_and_restarted", SERVERS, ONLY_SERVERS),
    Case(23, "server_frozen_and_thawed", SERVERS, ONLY_SERVERS),
    Case(24, "failover_readonly", ("postgres", "clickhouse"), f"{ONLY_SERVERS}; mongo {MONGO_REAL}"),
    Case(25, "poison_single_row", (*CORE, *SINKS)),
    Case(26, "poison_many", (*CORE, *SINKS), also=("all_poison",)),
    Case(27, "llm_text_fuzz", SINKS, "it is the sinks' own: the core only cleans the text"),
    Case(28, "no_bisect_on_ambiguous", CORE),
    Case(
        29,
        "token_reuse_forbidden",
        SINKS,
        "it is the sinks' own: who believes a token must never see it again",
    ),
    Case(30, "dedup_window_evicted", ("clickhouse",), ONLY_CLICKHOUSE),
    Case(31, "duplicate_id_submitted_twice", (*CORE, *SINKS)),
    Case(32, "fatal_auth_or_schema", (*CORE, *SINKS)),
    Case(33, "slow_sink_backpressure", CORE),
    Case(34, "memory_bound_bytes", (*CORE, *PROCESS)),
    Case(35, "batch_shape", CORE),
    Case(36, "flush_barrier", CORE),
    Case(37, "pipelining_order_and_isolation", CORE),
    Case(38, "breaker_cycle", CORE),
    Case(39, "collector_bug_supervised", CORE),
    Case(40, "clock_jump", CORE),
    Case(41, "loop_closed_without_stop", PROCESS, "a process of its own, on sqlite"),
    Case(42, "keyboard_interrupt", PROCESS, "a process of its own, on sqlite"),
    Case(43, "sigterm_under_load", PROCESS, "a process of its own, on sqlite"),
    Case(44, "sigterm_twice", PROCESS, "a process of its own, on sqlite", also=("44_second_sig",)),
    Case(45, "stream_client_disconnect", PROCESS, "a process of its own, on sqlite"),
    Case(46, "handler_outlives_shutdown_timeout", PROCESS, "a process of its own, on sqlite"),
    Case(47, "pump_finishes_after_http_drain", PROCESS, "a process of its own, on sqlite"),
    Case(48, "kill9_write_ahead", (*CORE, *PROCESS), EACH_DURABLE),
    Case(49, "kill9_spill_only", PROCESS, EACH_DURABLE),
    Case(50, "crash_during_redelivery", (*CORE, *SINKS, *PROCESS)),
    Case(51, "spool_corrupt", CORE, "the disk is the same whatever the sink"),
    Case(52, "disk_full_spool", (*CORE, *PROCESS), EACH_DURABLE),
    Case(53, "spool_locked_by_other", PROCESS, EACH_DURABLE),
    Case(54, "multi_worker", PROCESS, EACH_DURABLE),
    Case(55, "fork_after_start", (*CORE, *PROCESS)),
    Case(56, "long_outage_soak", PROCESS, EACH_DURABLE),
    Case(57, "random_history", CORE, also=("test_random_history",)),
)


@dataclass
class Cell:
    """The tests of one case in one column."""

    results: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        if self.results["failed"]:
            return f"{self.results['failed']} red"
        return (
            str(self.results["passed"]) if self.results["passed"] else ("not offered" if self.results else "")
        )


@dataclass(frozen=True)
class Test:
    """One test of a run."""

    file: str
    name: str
    result: str
    properties: tuple[tuple[str, str], ...]


def read(paths: Iterable[Path]) -> Iterator[Test]:
    for path in paths:
        for element in ElementTree.parse(path).iter("testcase"):
            is_red = element.find("failure") is not None or element.find("error") is not None
            result = "failed" if is_red else "skipped" if element.find("skipped") is not None else "passed"
            found = element.iter("property")
            properties = tuple((each.get("name", ""), each.get("value", "")) for each in found)
            yield Test(element.get("classname", ""), element.get("name", ""), result, properties)


def column(test: Test) -> str | None:
    where = f"{test.file} {test.name}".lower()
    if "mongo" in where:
        return "mongo+pymongo" if "pymongo" in where else "mongo+motor"
    if ".process." in where or ".integration." in where:
        return "process"
    for sink in ("postgres", "clickhouse", "sqlite", "memory"):
        if f"conformance.test_{sink}" in where:
            return sink
    return "core" if ".core." in where else None


def belongs(test: Test, case: Case) -> bool:
    numbers = re.match(r"test_((?:\d\d_)+)", test.name)
    if numbers and f"{case.number:02}" in numbers[1].split("_"):
        return True
    texts = (case.name, *case.also)
    return any(text in test.name or text in test.file for text in texts)


def matrix(tests: list[Test]) -> tuple[list[str], list[str]]:
    """The lines of the matrix, and what is wrong with it."""
    cells: defaultdict[tuple[int, str], Cell] = defaultdict(Cell)
    for test in tests:
        if (where := column(test)) is not None:
            for case in CASES:
                if belongs(test, case):
                    cells[case.number, where].results[test.result] += 1
    ran = {where for test in tests if (where := column(test))}
    lines = [f"{'case':<42}" + "".join(f"{each:>15}" for each in COLUMNS)]
    wrong: list[str] = []
    reasons: dict[str, list[str]] = defaultdict(list)
    for case in CASES:
        row = []
        for each in COLUMNS:
            cell = cells[case.number, each]
            text = str(cell)
            if cell.results["failed"]:
                wrong.append(f"case {case.number} is red on {each}")
            elif each in case.owed and each in ran and not cell.results["passed"]:
                wrong.append(f"case {case.number} {case.name} is owed on {each}, and there is no test")
                text = "MISSING"
            elif each in case.owed and each not in ran:
                text = "not run"
            row.append(f"{text or '-':>15}")
        if set(COLUMNS) - set(case.owed):
            reasons[case.why_not].append(str(case.number))
        lines.append(f"{case.number:>2} {case.name:<39}" + "".join(row))
    lines.append("\nNumbers are tests that passed. Why a case is not owed where there is a dash:")
    lines += [f"  {', '.join(numbers)}: {why}" for why, numbers in reasons.items()]
    return lines, wrong


def mutations(tests: list[Test]) -> tuple[list[str], list[str]]:
    lines = [f"{'fault put back':<46}{'seen':<6}by"]
    wrong = []
    missing = {path.stem for path in FAULTS.glob("*.diff")}
    for test in tests:
        values = defaultdict(list)
        for name, value in test.properties:
            values[name].append(value)
        if not values["mutation"]:
            continue
        name = values["mutation"][0]
        missing.discard(name)
        lines.append(f"{name:<46}{'yes' if test.result == 'passed' else 'NO':<6}{short(values['red'])}")
        if test.result != "passed" or values["green"]:
            wrong.append(f"the fault {name} was not noticed by {', '.join(values['green']) or 'its cases'}")
    wrong += [f"the fault {name} was not put back" for name in sorted(missing)]
    return lines, wrong


def short(cases: list[str]) -> str:
    return ", ".join(sorted({case.rsplit("::", 1)[1] for case in cases}))


def main() -> int:
    paths = sorted(REPORTS.glob("*.xml"))
    tests = list(read(paths))
    lines, wrong = matrix(tests)
    table, unseen = mutations(tests)
    text = "\n".join([*lines, "", *table])
    (REPORTS / "matrix.txt").write_text(text + "\n")
    sys.stdout.write(f"{text}\n")
    for each in (*wrong, *unseen):
        sys.stdout.write(f"NOT IN ORDER: {each}\n")
    counts = Counter(test.result for test in tests)
    told = f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
    sys.stdout.write(f"\n{told}\n")
    return 1 if wrong or unseen or counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
