"""results.md, made from the JSON files beside it and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness import table
from harness.parts import PARTS
from harness.settings import SINKS, STRATEGIES
from harness.table import Result

PAGE = "results.md"
PLOTS = ("latency.png", "queue.png", "rss.png")
_NOTE = "Generated from the JSON files beside it, by the load harness. Never edit it: run the harness again."
_OWN = ("sink", "strategy", "own_server")
"""Settings that are the run's, and not those of all."""


def results_in(folder: Path) -> dict[Path, dict[str, Any]]:
    """Each result with its file. Others may lie there, as `make bench` has its own: they are none of ours."""
    return {path: found for path in folder.glob("*.json") if (found := _result(path)) is not None}


def _result(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except ValueError:
        return None
    is_ours = isinstance(found, dict) and found.get("label") == path.stem and "coverage" in found
    return found if is_ours else None


def read_results(folder: Path) -> list[dict[str, Any]]:
    """In the order of the tables."""
    results = results_in(folder).values()
    order = [*PARTS], [*SINKS], [*STRATEGIES]
    keys = ("part", "sink", "strategy")

    def place(result: Result) -> tuple[Any, ...]:
        return (*(names.index(result[key]) for names, key in zip(order, keys, strict=True)), result["label"])

    return sorted(results, key=place)


def commits_of(results: Iterable[Result]) -> list[str]:
    """Those that the results come from: more than one say nothing together."""
    return sorted({each["versions"]["commit"] for each in results})


def write_page(folder: Path, commit: str) -> Path:
    """Writes the page anew, of the results of ``commit`` alone."""
    page = folder / PAGE
    results = read_results(folder)
    page.write_text("\n".join(_page(results, commit, folder)) + "\n", encoding="utf-8")
    return page


def _page(everything: Sequence[Result], commit: str, folder: Path) -> Iterable[str]:
    results = [each for each in everything if each["versions"]["commit"] == commit]
    yield from ("# Load results", "", _NOTE, "")
    if not results:
        return
    yield from (*_about(results), "")
    lost = sum(map(table.lost, results))
    promised = sum(each["coverage"]["promised"] for each in results)
    yield f"{len(results)} runs, {promised:,} ids promised, {lost} missing, duplicate, unknown or wrong."
    if left_out := len(everything) - len(results):
        yield f"{left_out} results of other commits are left out."
    yield from _section("Throughput and latency", table.LATENCY, table.SPEED_HEADS, table.speed(results))
    yield from _section("Coverage by id", table.COVERAGE, table.COVER_HEADS, map(table.cover, results))
    yield from _section("Stops, kills and outages", table.STOPS, table.STOP_HEADS, table.stops(results))
    yield from _section("Processes", table.USAGE, table.USE_HEADS, table.usage(results))
    if problems := [f"- {each['label']}: {problem}" for each in results for problem in each["problems"]]:
        yield from ("", "## What was wrong", "", *problems)
    if plots := [name for name in PLOTS if (folder / name).exists()]:
        yield from ("", "## Plots", "", *(f"![{name.partition('.')[0]}]({name})\n" for name in plots))


def _section(title: str, said: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield from ("", f"## {title}", "", said, "", *table.table(heads, rows))


def _about(results: Sequence[Result]) -> Iterable[str]:
    """What ran, and with which settings: a line for each that not all have in common."""
    first = results[0]
    servers = {f"server of {each['sink']}": each["server"] for each in results}
    told = {**first["machine"], **first["versions"], **servers}
    yield from table.table(("what", "which"), ((name, str(value)) for name, value in told.items()))
    for settings in dict.fromkeys(map(_settings, results)):
        yield from ("", f"Settings: {settings}.")


def _settings(result: Result) -> str:
    told = {name: value for name, value in result["settings"].items() if name not in _OWN}
    return ", ".join(f"`{name}={_plain(value)}`" for name, value in told.items())


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
