"""The tables of results.md: their heads, what is said above each, and their rows, from results as they are in
the JSON files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Result: TypeAlias = Mapping[str, Any]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """In Markdown."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


# --- throughput and latency

LATENCY = (
    "`calls/s` over the scenario's own time. Milliseconds of answered calls: from the moment that a call was"
    " due (`rate_*`, `mixed` and all below; k6 drops what it has no VU for, which is told), in a closed loop"
    " (`distinct_users`, `same_user`) from when it was sent. `over` is a call's time less that of its"
    " provider."
)
SPEED_HEADS = (
    *("sink", "strategy", "scenario", "calls", "failed", "calls/s", "p50", "p95", "p99", "p99.9"),
    *("over p50", "over p99", "first byte p50"),
)


def speed(results: Sequence[Result]) -> Iterable[Sequence[str]]:
    """A row for each scenario."""
    for each in results:
        for name, told in each["scenarios"].items():
            latency, over, first = (told[key] or {} for key in ("latency_ms", "overhead_ms", "first_ms"))
            yield (
                *_who(each),
                f"{name}{_dropped(each, name)}",
                f"{told['calls']:,}",
                str(told["failed"]),
                str(told["per_second"]),
                *(_number(latency.get(share)) for share in ("p50", "p95", "p99", "p99.9")),
                *(_number(over.get(share)) for share in ("p50", "p99")),
                _number(first.get("p50")),
            )


def _dropped(result: Result, scenario: str) -> str:
    dropped = result.get("more", {}).get("k6_dropped", 0)
    return f" ({dropped} dropped at all rates)" if dropped and scenario.startswith("rate_") else ""


def _who(result: Result) -> tuple[str, str]:
    return result["sink"], result["strategy"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


# --- coverage

COVERAGE = (
    "Each id that a client was promised (`x-usage-id`), and each call that the provider saw, beside the rows"
    " in the sink as everybody is told to read it. Anything but 0 fails the run. `stored` are the rows that"
    " lie in the table: in ClickHouse more than `rows` where one was sent twice, which its view hides."
    " `excused` were not owed: with `single`, which has no journal, the calls that ran at kill -9."
)
COVER_HEADS = (
    *("sink", "strategy", "part", "promised", "provider saw", "rows", "stored", "missing", "duplicate"),
    *("unknown", "wrong", "without an id", "excused", "coverage", "in order"),
)
LOSSES = ("missing", "duplicate", "unknown", "wrong", "unpromised")


def lost(result: Result) -> int:
    """Everything that counts against it."""
    return sum(result["coverage"][name] for name in LOSSES)


def cover(result: Result) -> Sequence[str]:
    """Its row."""
    told = result["coverage"]
    return (
        *_who(result),
        result["part"],
        *(f"{told[name]:,}" for name in ("promised", "seen_by_provider", "rows", "stored_rows")),
        *(str(told[name]) for name in (*LOSSES, "excused")),
        f"{told['percent']:g} %",
        "NO" if result["problems"] else "yes",
    )


# --- stops

STOPS = (
    "`running`: calls under way when the signal came. `answers`: seconds from the sink's recovery until a"
    " call was answered that was sent since; `at rest`: until it had every row, though calls went on for half"
    " the duration. The numbers of rows are those of the shutdown report; calls are those of the whole run."
    " `refused`: by the code that the client was told, also at the end of a stream that was cut; with"
    " `single`, and while its sink is away, that is as promised, and the report's `shed` has to say the same."
)
STOP_HEADS = (
    *("sink", "strategy", "part", "end", "seconds", "exit", "running", "answers", "at rest", "accepted"),
    *("recovered", "committed", "duplicates", "spooled", "abandoned", "answered", "left", "refused", "cut"),
    "unreached",
)
_ROWS = ("accepted", "recovered", "committed", "duplicates", "spooled", "abandoned")
_MORE = ("running_at_signal", "answers_after_s", "at_rest_after_s")


def stops(results: Sequence[Result]) -> Iterable[Sequence[str]]:
    """A row for each end of a gateway."""
    for each in results:
        more, outcomes, codes = each.get("more", {}), _added(each, "outcomes"), _added(each, "codes")
        named = "".join(f" ({name} {count})" for name, count in sorted(codes.items()))
        for stop in each["stops"]:
            report = stop["report"] or {}
            yield (
                *_who(each),
                each["part"],
                stop["how"],
                str(stop["seconds"]),
                str(stop["exit_status"]),
                *(str(more.get(name, "-")) for name in _MORE),
                *(str(report.get(name, "-")) for name in _ROWS),
                *(str(outcomes[name]) for name in ("answered", "left")),
                f"{outcomes['refused']}{named}",
                *(str(outcomes[name]) for name in ("broken", "unreached")),
            )


def _added(result: Result, what: str) -> Counter[str]:
    """Of all scenarios together."""
    return sum((Counter(told[what]) for told in result["scenarios"].values()), Counter())


# --- processes

USAGE = "CPU in percent of one core, from the time that each process and its children used between two looks."
USE_HEADS = ("sink", "strategy", "part", "process", "CPU avg", "CPU max", "RSS avg MB", "RSS max MB")


def usage(results: Sequence[Result]) -> Iterable[Sequence[str]]:
    """A row for each process of a run that is not the harness's own."""
    names = ("cpu_avg", "cpu_max", "rss_mb_avg", "rss_mb_max")
    for each in results:
        for process, told in each["processes"].items():
            if process not in ("k6", "provider"):
                yield (*_who(each), each["part"], process, *(_number(told.get(name)) for name in names))
