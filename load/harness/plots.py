"""Latency, queue depth and memory as pictures, from the same JSON files as the tables. Needs matplotlib."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.page import commits_of, read_results
from harness.settings import SINKS
from harness.table import Result

SHARES = ("p50", "p95", "p99", "p99.9")
WIDTH, HEIGHT = 5.5, 3.6


def draw(folder: Path, commit: str) -> None:
    """Writes latency.png, queue.png and rss.png of the results of ``commit``: one panel for each sink."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    results = [each for each in read_results(folder) if commits_of([each]) == [commit]]
    if not results:
        return
    _panels(results, folder / "latency.png", "ms (log)", _latency)
    _panels(results, folder / "queue.png", "rows not yet in the sink", _queue)
    _panels(results, folder / "rss.png", "gateway's RSS, MB", _memory)


def _panels(results: Sequence[Result], path: Path, what: str, draw_one: Any) -> None:
    pyplot = importlib.import_module("matplotlib.pyplot")
    sinks = [sink for sink in SINKS if any(each["sink"] == sink for each in results)]
    size = (WIDTH * len(sinks), HEIGHT)
    figure, axes = pyplot.subplots(1, len(sinks), figsize=size, squeeze=False, sharey=True)
    for sink, axis in zip(sinks, axes[0], strict=True):
        draw_one(axis, [each for each in results if each["sink"] == sink])
        axis.set_title(sink)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=6)
    axes[0][0].set_ylabel(what)
    figure.tight_layout()
    figure.savefig(path, dpi=80, metadata={"Software": None})
    pyplot.close(figure)


def _latency(axis: Any, results: Iterable[Result]) -> None:
    for each in results:
        if each["part"] == "k6":
            for name, told in each["scenarios"].items():
                if told["latency_ms"] and name != "warmup":
                    values = [told["latency_ms"][share] for share in SHARES]
                    axis.plot(SHARES, values, marker="o", label=f"{each['strategy']} {name}")
    axis.set_yscale("log")


def _queue(axis: Any, results: Iterable[Result]) -> None:
    for each in results:
        if each["part"].startswith("sink_") or each["part"] == "k6":
            found = [(sample["t"], sample["ledger"]) for sample in each["samples"] if "ledger" in sample]
            depth = [rows["queued"] + rows["in_flight"] + rows["spooled"] for _, rows in found]
            axis.plot([at for at, _ in found], depth, label=f"{each['strategy']} {each['part']}")
    axis.set_yscale("symlog")
    axis.set_xlabel("s")


def _memory(axis: Any, results: Iterable[Result]) -> None:
    for each in results:
        found = [
            (sample["t"], sample["gateway"]["rss_mb"]) for sample in each["samples"] if "gateway" in sample
        ]
        if found and each["part"] in ("k6", "soak", "sink_killed"):
            axis.plot(*zip(*found, strict=True), label=f"{each['strategy']} {each['part']}")
    axis.set_xlabel("s")
