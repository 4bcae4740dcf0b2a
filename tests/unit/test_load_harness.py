"""The load harness reads its variables as it says, adds up what it is given, and passes over no bad line."""

from __future__ import annotations

import importlib
import json
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

LOAD = Path(__file__).parents[2] / "load"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``part(name)``: a module of the harness."""
    monkeypatch.syspath_prepend(LOAD)
    return lambda name: importlib.import_module(f"harness.{name}")


# --- settings


def test_variables_are_those_of_the_pull_request(part: Any) -> None:
    variables = {
        "GATEWAY_PORT": "4001",
        "FAKE_PORT": "9998",
        "WORKERS": "2",
        "VUS": "50",
        "DURATION": "1m30s",
        "BUDGET_STRATEGY": "cas",
        "LOG_WRITER_STRATEGY": "single:postgres",
        "RNG_SEED": "7",
        "FAKE_DELAY_MS": "10",
        "RESULTS_DIR": "there",
    }

    settings = part("settings").from_environment(variables)

    assert (settings.gateway_port, settings.fake_port, settings.workers, settings.vus) == (4001, 9998, 2, 50)
    assert (settings.duration_s, settings.budget_strategy, settings.rng_seed) == (90.0, "cas", 7)
    assert (settings.log_writer, settings.fake_delay_ms) == ("single:postgres", 10.0)
    assert settings.results_dir == Path("there")


def test_defaults_are_those_of_the_pull_request_with_a_provider_that_takes_its_time(part: Any) -> None:
    settings = part("settings").from_environment({})

    assert (settings.gateway_port, settings.fake_port, settings.workers, settings.vus) == (4000, 9999, 1, 100)
    assert (settings.duration_s, settings.rng_seed, settings.log_writer) == (30.0, 42, "batch:sqlite")
    assert (settings.fake_delay_ms, settings.fake_jitter_sigma > 0) == (200.0, True)


@pytest.mark.parametrize(
    ("wanted", "url", "found"),
    [
        ("batch", None, ("batch", "sqlite")),
        ("single", None, ("single", "sqlite")),
        ("clickhouse", None, ("batch", "clickhouse")),
        ("single:mongo", None, ("single", "mongo")),
        ("batch", "postgresql://u@h/d", ("batch", "postgres")),
        ("single:clickhouse", "https://h:8443", ("single", "clickhouse")),
    ],
)
def test_sink_is_the_one_named_or_that_of_the_url(
    part: Any, wanted: str, url: str | None, found: tuple[str, str]
) -> None:
    assert part("settings").log_writer_of(wanted, url) == found


@pytest.mark.parametrize(
    "variables",
    [
        {"LOG_WRITER_STRATEGY": "noop"},
        {"LOG_WRITER_STRATEGY": "batch:memory"},
        {"LOG_WRITER_STRATEGY": "batch:mongo", "TEST_DATABASE_URL": "postgresql://h/d"},
        {"DURATION": "soon"},
        {"BUDGET_STRATEGY": "sometimes"},
        {"VUS": "0"},
        {"GATEWAY_PORT": "70000"},
    ],
)
def test_variable_that_cannot_be_used_is_named(part: Any, variables: dict[str, str]) -> None:
    settings = part("settings")

    with pytest.raises(settings.SettingsWrong, match=next(iter(variables))):
        settings.from_environment(variables)


def test_address_of_the_database_is_in_no_result(part: Any) -> None:
    settings = part("settings").from_environment({"TEST_DATABASE_URL": "postgresql://u:secret@h/d"})

    assert "secret" not in json.dumps(settings.told())


# --- numbers


def test_percentiles_are_values_that_were_there(part: Any) -> None:
    found = part("numbers").percentiles(range(1, 1001))

    assert found == {"p50": 500, "p95": 950, "p99": 990, "p99.9": 999, "max": 1000}
    assert part("numbers").percentiles([]) is None


def test_scenario_is_measured_over_its_own_time_from_when_calls_were_due(part: Any) -> None:
    call = part("calls").Call
    calls = [
        call(
            "fast", f"f{number}", outcome="answered", due_ms=number * 10, sent_ms=number * 10 + 2, done_ms=500
        )
        for number in range(50)
    ]
    calls += [call("late", "l", outcome="broken", due_ms=60_000.0, sent_ms=60_000.0, done_ms=61_000.0)]

    found = part("numbers").by_scenario(calls, {"f0": 398.0})

    assert list(found) == ["fast", "late"]
    assert (found["fast"]["per_second"], found["fast"]["seconds"], found["late"]["failed"]) == (100.0, 0.5, 1)
    assert found["fast"]["latency_ms"]["max"] == 500
    assert found["fast"]["overhead_ms"]["p50"] == 100


# --- files


def test_line_that_is_no_call_is_not_passed_over(part: Any, tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text('{"scenario": "a", "request_id": "r", "promised": "id"}\n{"scenario": "a", "requ')

    with pytest.raises(ValueError, match="line 2"):
        list(part("calls").read_calls(path))


def test_k6_that_tells_of_fewer_calls_than_it_made_is_a_problem(part: Any) -> None:
    k6 = part("k6")
    call = part("calls").Call("a", "r")

    assert k6.K6Run([call], iterations=1, dropped=0).problems() == []
    assert k6.K6Run([call], iterations=2, dropped=0).problems() != []


def result(part: Any, commit: str, **changes: Any) -> dict[str, Any]:
    """What one run of k6's scenarios might have come to."""
    call = part("calls").Call("rate_50", "r", outcome="answered", sent_ms=10, due_ms=10, done_ms=20)
    kinds = ("missing", "duplicate", "unknown", "wrong", "unpromised", "excused")
    counts = ("promised", "seen_by_provider", "rows", "stored_rows")
    return {
        "part": "k6",
        "sink": "sqlite",
        "strategy": "batch",
        "server": "SQLite 3",
        "versions": {"commit": commit},
        "machine": {"cpus": 2},
        "settings": part("settings").Settings().told(),
        "scenarios": part("numbers").by_scenario([call], {}),
        "coverage": {**dict.fromkeys(kinds, 0), **dict.fromkeys(counts, 1), "percent": 100.0},
        "processes": {"gateway": {"cpu_avg": 1.0}},
        "stops": [{"how": "SIGTERM", "seconds": 0.1, "exit_status": 0, "report": {"accepted": 77}}],
        "problems": [],
        "samples": [],
        **changes,
    }


def test_page_has_the_results_of_one_commit_and_says_how_many_others_there_are(
    part: Any, tmp_path: Path
) -> None:
    keep = part("results").keep
    keep(result(part, "older", server="SQLite 2"), "before", tmp_path)
    keep(result(part, "newer", problems=["a call failed"]), "now", tmp_path)

    page = (tmp_path / "results.md").read_text()

    assert ("newer" in page, "older" in page, "SQLite 2" in page) == (True, False, False)
    assert "1 results of other commits are left out." in page
    assert "- now: a call failed" in page
    assert "| sqlite | batch | k6 | SIGTERM | 0.1 | 0 |" in page


def test_results_of_before_are_cleared_and_nothing_else(part: Any, tmp_path: Path) -> None:
    part("results").keep(result(part, "older"), "before", tmp_path)
    others = {"notes.txt": "", "package.json": '{"label": "package", "name": "x"}', "list.json": "[]"}
    others |= {"broken.json": "{", "bench.json": '{"sections": []}', "bench.md": "# What it measured"}
    for name, text in others.items():
        (tmp_path / name).write_text(text)

    part("results").clear(tmp_path)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == others


def test_files_that_are_no_results_are_no_matter_to_the_page(part: Any, tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text('{"about": {}, "sections": []}')

    part("results").keep(result(part, "now"), "now", tmp_path)

    assert [each["label"] for each in part("page").read_results(tmp_path)] == ["now"]


# --- what goes wrong while calls are made


class Nowhere:
    """A stage on which nobody answers."""

    master_key = "tg-none"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.provider = SimpleNamespace(pid=os.getpid())
        self.place = SimpleNamespace(where={"sink": "sqlite", "path": str(folder / "none.db")})

    async def seen(self) -> list[dict[str, Any]]:
        return []


async def test_what_goes_wrong_while_calls_are_made_is_among_the_problems_of_the_run(
    part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(scene: Any) -> None:
        async with scene.driver("stuck", ["http://127.0.0.1:1"]).calling():
            raise TimeoutError("not well again")

    nowhere = Nowhere(tmp_path / "run")
    home = SimpleNamespace(told="nothing", pid=None, place=lambda *_, **__: nullcontext(nowhere.place))
    monkeypatch.setattr(part("play"), "stage", lambda *_: nullcontext(nowhere))
    monkeypatch.setitem(part("parts").PARTS, "stuck", stuck)

    found = await part("play").play("stuck", part("settings").Settings(), home, nowhere.folder, print)

    assert "TimeoutError: not well again" in found["problems"]


# --- the rule for calls that got no place


class Stopped:
    """A gateway that ends well and says how many calls it turned away."""

    name = "gateway"

    def __init__(self, shed: dict[str, int]) -> None:
        self._shed = shed

    async def stop(self) -> dict[str, Any]:
        report = {"unaccounted": 0, "abandoned": 0, "dead_lettered": 0, "shed": self._shed}
        return {"seconds": 0.1, "exit_status": 0, "report": report}


def refused(part: Any, *codes: str) -> Any:
    """A scene whose calls were refused so."""
    call = part("calls").Call
    scene = part("scene").Scene(None, None, None, None, print)
    scene.calls = [
        call("s", str(number), outcome="refused", status=503, code=code) for number, code in enumerate(codes)
    ]
    return scene


DOWN, WITHHELD, FULL = "usage_log_sink_down", "usage_not_durable", "usage_log_queue_full"


@pytest.mark.parametrize(
    ("codes", "allowed", "shed", "is_wrong"),
    [
        ([], (), {}, False),
        ([DOWN, WITHHELD, DOWN], (DOWN, WITHHELD), {"sink_down": 2}, False),
        ([DOWN], (DOWN,), {"sink_down": 2}, True),
        ([DOWN], (DOWN,), {}, True),
        ([DOWN], (), {"sink_down": 1}, True),
        ([FULL], (DOWN,), {"queue_full": 1}, True),
        ([DOWN], (DOWN,), {"queue_full": 1}, True),
        ([], (DOWN,), {"queue_full": 1}, True),
    ],
)
async def test_gateway_turned_away_exactly_the_calls_that_were_told_so_and_could_be(
    part: Any, codes: list[str], allowed: tuple[str, ...], shed: dict[str, int], is_wrong: bool
) -> None:
    scene = refused(part, *codes)
    scene.allowed = allowed

    await scene.stop(Stopped(shed))

    assert bool(scene.problems) == is_wrong


def test_call_that_was_refused_for_another_reason_is_a_failure(part: Any) -> None:
    scene = refused(part, DOWN, FULL)

    scene.expect_no_failures(allowed=(DOWN,))

    assert [FULL in problem and DOWN not in problem for problem in scene.problems] == [True]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {"code": "usage_log_sink_down"}}', DOWN),
        (b'data: {"choices": []}\n\ndata: {"error": {"code": "usage_not_durable"}}\n\n', WITHHELD),
        (b"data: [DONE]\n\n", None),
        (b'data: {"choices": []}\n\n', None),
        (b"<html>Bad gateway</html>", None),
        (b"[]", None),
    ],
)
def test_code_is_that_of_the_error_or_of_the_event_that_ends_a_stream(
    part: Any, body: bytes, code: str | None
) -> None:
    assert part("driver").error_code(body) == code
