"""The count of a load run must find what it is there to find: here each kind of loss is planted once."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

LOAD = Path(__file__).parents[2] / "load"
NAMES = "abc"


class Scene:
    """Three answered calls with their rows, to be spoilt."""

    def __init__(self, coverage: Any, calls: Any, rows: Any) -> None:
        self.coverage = coverage
        self._compare = coverage.compare
        self.calls = [
            calls.Call("load", name, outcome="answered", status=200, promised=f"id-{name}") for name in NAMES
        ]
        self.seen = [{"request_id": name, "prompt_tokens": 10, "completion_tokens": 5} for name in NAMES]
        told = ("fake", "success", 200, "complete", "provider", 10, 5, 15, None)
        self.rows = [rows.Row(f"id-{name}", "boot", name, *told) for name in NAMES]

    def found(self, **options: Any) -> dict[str, list[str]]:
        """What is off, by its kind."""
        coverage = self._compare(self.calls, self.seen, self.rows, **options)
        kinds = ("missing", "duplicate", "unknown", "wrong", "unpromised", "excused")
        return {kind: list(which) for kind in kinds if (which := getattr(coverage, kind))}

    def percent(self) -> float:
        return self._compare(self.calls, self.seen, self.rows).percent

    def problems(self) -> list[str]:
        return self._compare(self.calls, self.seen, self.rows).problems()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.syspath_prepend(LOAD)
    names = ("harness.coverage", "harness.calls", "usage_rows")
    return Scene(*map(importlib.import_module, names))


def test_nothing_is_wrong_with_three_calls_and_their_rows(scene: Scene) -> None:
    assert (scene.found(), scene.problems(), scene.percent()) == ({}, [], 100.0)


def test_run_without_a_promise_proves_nothing(scene: Scene) -> None:
    scene.calls, scene.seen, scene.rows = [], [], []

    assert scene.problems() != []


def test_row_that_was_dropped_is_named(scene: Scene) -> None:
    del scene.rows[1]

    assert scene.found() == {"missing": ["id-b"]}
    assert scene.percent() == 66.6666


def test_one_row_of_many_millions_that_is_missing_is_no_hundred_percent(scene: Scene) -> None:
    kinds = dict.fromkeys(("duplicate", "unknown", "wrong", "unpromised"), ())
    many = scene.coverage.Coverage(promised=10**7, seen=10**7, rows=10**7 - 1, missing=["id-a"], **kinds)

    assert f"{many.percent:g}" == "99.9999"


def test_loss_and_duplicate_do_not_cancel_out(scene: Scene) -> None:
    scene.rows[1] = scene.rows[0]

    assert scene.found() == {"missing": ["id-b"], "duplicate": ["id-a", "a"]}


def test_second_row_of_a_call_under_another_id_is_found(scene: Scene) -> None:
    scene.rows.append(replace(scene.rows[0], id="id-other"))

    assert scene.found()["duplicate"] == ["a"]
    assert len(scene.found()["wrong"]) == 1


def test_row_that_no_call_explains_is_found(scene: Scene) -> None:
    scene.rows.append(replace(scene.rows[0], id="id-other", request_id="other"))

    assert scene.found()["unknown"] == ["id-other"]


def test_call_that_only_the_provider_knows_has_to_have_its_row(scene: Scene) -> None:
    scene.seen.append({"request_id": "cut", "prompt_tokens": 1, "completion_tokens": 1})

    assert scene.found() == {"missing": ["request cut"]}


def test_row_of_a_call_that_only_the_provider_knows_is_explained(scene: Scene) -> None:
    scene.seen.append({"request_id": "cut", "prompt_tokens": 10, "completion_tokens": 5})
    scene.rows.append(replace(scene.rows[0], id="id-cut", request_id="cut", status="cancelled"))

    assert scene.found() == {}


def test_call_that_the_provider_was_asked_twice_is_found(scene: Scene) -> None:
    scene.seen.append(scene.seen[0])

    assert scene.found() == {"duplicate": ["a"]}


def test_attempt_that_a_retry_hid_is_no_duplicate(scene: Scene) -> None:
    hidden = {"status": "absorbed", "usage_source": "none"}
    scene.rows.append(replace(scene.rows[0], id="id-attempt", **hidden))

    assert scene.found() == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt_tokens": 11, "total_tokens": 16},
        {"completion_tokens": 6, "total_tokens": 16},
        {"completion_tokens": None},
        {"total_tokens": 16},
        {"usage_source": "none"},
        {"status": "error"},
        {"status": "cancelled", "end_reason": "crash", "usage_source": "none"},
    ],
)
def test_row_that_is_not_what_its_call_was_is_found(scene: Scene, changes: dict[str, Any]) -> None:
    scene.rows[0] = replace(scene.rows[0], **changes)

    assert len(scene.found()["wrong"]) == 1


def test_row_with_tokens_of_a_call_that_the_provider_never_saw_is_found(scene: Scene) -> None:
    del scene.seen[0]

    assert len(scene.found()["wrong"]) == 1


@pytest.mark.parametrize("outcome", ["answered", "left"])
def test_answer_without_an_id_is_found(scene: Scene, outcome: str) -> None:
    scene.calls[0] = replace(scene.calls[0], outcome=outcome, promised=None)

    assert scene.found() == {"unpromised": ["request a"]}


def test_call_that_was_cut_is_owed_its_row(scene: Scene) -> None:
    scene.calls[0] = replace(scene.calls[0], outcome="broken")
    del scene.rows[0]

    assert scene.found() == {"missing": ["id-a"]}


def test_call_that_is_owed_no_row_is_excused_and_no_other(scene: Scene) -> None:
    scene.calls[0] = replace(scene.calls[0], outcome="broken")
    del scene.rows[:2]

    assert scene.found(unowed={"a"}) == {"missing": ["id-b"], "excused": ["id-a"]}


def test_call_that_was_refused_before_the_provider_has_no_row_to_miss(scene: Scene) -> None:
    refused = {"outcome": "refused", "status": 503, "promised": None, "code": "usage_log_sink_down"}
    scene.calls[0] = replace(scene.calls[0], **refused)
    del scene.rows[0], scene.seen[0]

    assert scene.found() == {}


def test_call_whose_answer_was_withheld_after_the_provider_is_owed_its_row(scene: Scene) -> None:
    withheld = {"outcome": "refused", "status": 503, "promised": None, "code": "usage_not_durable"}
    scene.calls[0] = replace(scene.calls[0], **withheld)

    assert scene.found() == {}
    del scene.rows[0]
    assert scene.found() == {"missing": ["request a"]}
