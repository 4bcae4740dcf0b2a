"""The oracle of `make chaos` must find what it is there to find: here each kind of loss is planted once."""

from __future__ import annotations

import importlib
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

LOAD = Path(__file__).parents[2] / "load"


class Scene:
    """Three answered calls of one run with their rows, to be spoilt."""

    def __init__(self, module: Any, rows: Any) -> None:
        self.module = module
        self.run = module.Run(0, is_journalled=True, ending="killed", promises=3, shown_place=3)
        self.calls = {
            name: module.Call(name, 0, "plain", "answered", 200, f"id-{name}", place)
            for place, name in enumerate("abc")
        }
        self.seen = [
            {"request_id": name, "model": "fake", "prompt_tokens": 10, "completion_tokens": 5}
            for name in "abc"
        ]
        self.rows = [
            rows.Row(
                f"id-{name}", "boot", name, "fake", "success", 200, "complete", "provider", 10, 5, 15, COST
            )
            for name in "abc"
        ]

    def verdict(self) -> Any:
        return self.module.judge(self.calls, [self.run], self.seen, self.rows)

    def spoil(self, **changes: Any) -> None:
        self.rows[0] = replace(self.rows[0], **changes)


COST = Decimal("0.000004500")


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.syspath_prepend(LOAD)
    return Scene(importlib.import_module("obligations"), importlib.import_module("usage_rows"))


def test_nothing_is_wrong_with_three_calls_and_their_rows(scene: Scene) -> None:
    verdict = scene.verdict()

    assert (verdict.answered, verdict.rows, verdict.problems) == (3, 3, [])


def test_missing_row_of_a_journalled_call_is_found(scene: Scene) -> None:
    del scene.rows[1]

    assert scene.verdict().missing == 1


def test_missing_row_of_a_call_that_only_the_provider_saw_is_found(scene: Scene) -> None:
    scene.calls["b"] = replace(scene.calls["b"], outcome="unreached", promised=None, place=None)
    del scene.rows[1]

    assert scene.verdict().missing == 1


def test_without_a_journal_a_kill_may_cost_what_the_ledger_showed_in_memory_and_no_more(scene: Scene) -> None:
    scene.run.is_journalled = False
    scene.run.shown_floating = 1
    scene.rows = scene.rows[:1]

    assert (scene.verdict().missing, scene.verdict().excused) == (1, 1)


def test_without_a_journal_a_kill_may_cost_what_was_answered_after_the_last_look(scene: Scene) -> None:
    scene.run.is_journalled = False
    scene.run.shown_place = 0
    scene.rows = []

    assert (scene.verdict().missing, scene.verdict().excused) == (0, 3)


def test_abandoned_row_is_excused_only_where_rows_may_be_abandoned(scene: Scene) -> None:
    scene.run.ending, scene.run.abandoned = "stopped", frozenset({"id-b"})
    del scene.rows[1]

    assert scene.verdict().missing == 0
    assert scene.verdict().problems != []
    scene.run.may_abandon = True
    assert scene.verdict().problems == []


def test_row_that_is_there_twice_is_found(scene: Scene) -> None:
    scene.rows.append(scene.rows[0])

    assert scene.verdict().duplicate > 0


def test_row_that_nobody_asked_for_is_found(scene: Scene) -> None:
    scene.rows.append(replace(scene.rows[0], id="other", request_id="other"))

    assert scene.verdict().unknown == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"completion_tokens": 6},
        {"total_tokens": 16},
        {"cost": Decimal("0.000004501")},
        {"cost": None},
        {"model": "other"},
        {"status": "error"},
        {"status_code": 500},
        {"usage_source": "none"},
        {"status": "cancelled", "end_reason": "crash"},
    ],
)
def test_row_that_is_not_what_its_call_was_is_found(scene: Scene, changes: dict[str, Any]) -> None:
    scene.spoil(**changes)

    assert scene.verdict().unequal == 1


def test_interrupted_call_may_be_a_crash(scene: Scene) -> None:
    scene.calls["a"] = replace(scene.calls["a"], outcome="broken")
    scene.spoil(status="cancelled", end_reason="crash", usage_source="none", cost=None)

    assert (scene.verdict().problems, scene.verdict().crash_rows) == ([], 1)


def test_ledger_that_did_not_add_up_is_found(scene: Scene) -> None:
    scene.run.unaccounted = 1

    assert scene.verdict().problems != []
