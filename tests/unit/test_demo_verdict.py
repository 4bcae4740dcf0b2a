"""The demo's count must find what it is there to find: here each kind of loss is planted once."""

from __future__ import annotations

import importlib
import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

LOAD = Path(__file__).parents[2] / "load"


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(LOAD)
    return importlib.import_module("tally")


def proof(tally: ModuleType, **changes: Any) -> Any:
    """A proof of three calls with three rows, except for ``changes``."""
    calls = [call(tally, number) for number in (1, 2, 3)]
    facts = {
        "calls": calls,
        "interrupted": calls[2:],
        "failed_early": [],
        "rows": [row(tally, number) for number in (1, 2, 3)],
        "seen_by_provider": ["demo-1", "demo-2", "demo-3"],
        "exit_status": 0,
        "report": {"unaccounted": 0},
    }
    return tally.Proof(**{**facts, **changes})


def call(tally: ModuleType, number: int, **changes: Any) -> Any:
    facts = {"kind": "chat", "outcome": "answered", "promised": UUID(int=number)}
    return tally.Call(request_id=f"demo-{number}", **{**facts, **changes})


def row(tally: ModuleType, number: int, **changes: Any) -> Any:
    facts = {"id": UUID(int=number), "request_id": f"demo-{number}", "status": "success"}
    return tally.Row(**{**facts, **changes})


def test_calls_and_rows_that_fit_are_a_proof(tally: ModuleType) -> None:
    assert proof(tally).problems() == []


def test_a_promise_without_a_row_is_missing(tally: ModuleType) -> None:
    lost = proof(tally, rows=[row(tally, 1), row(tally, 2)], seen_by_provider=["demo-1", "demo-2"])

    assert lost.problems() == ["promised calls have no row"]
    assert dict(lost.table())["missing"] == 1


def test_a_call_with_rows_under_two_ids_is_duplicate(tally: ModuleType) -> None:
    again = row(tally, 1, id=UUID(int=9))
    calls = [call(tally, 1, outcome="left", promised=None), call(tally, 2), call(tally, 3)]

    twice = proof(tally, calls=calls, rows=[*(row(tally, number) for number in (1, 2, 3)), again])

    assert twice.problems() == ["rows are there twice"]


def test_a_row_that_no_call_explains_is_unknown(tally: ModuleType) -> None:
    rows = [row(tally, number) for number in (1, 2, 3, 4)]

    assert proof(tally, rows=rows).problems() == ["rows belong to no call"]


def test_a_row_under_another_id_than_promised_is_missing_and_unknown(tally: ModuleType) -> None:
    rows = [row(tally, 1, id=UUID(int=9)), row(tally, 2), row(tally, 3)]

    assert proof(tally, rows=rows).problems() == ["promised calls have no row", "rows belong to no call"]


def test_an_absorbed_attempt_beside_its_call_is_in_order(tally: ModuleType) -> None:
    attempt = row(tally, 1, id=UUID(int=9), status="absorbed")
    rows = [*(row(tally, number) for number in (1, 2, 3)), attempt]

    assert proof(tally, rows=rows).problems() == []


def test_a_call_that_reached_the_provider_and_has_no_row_is_found_without_a_promise(
    tally: ModuleType,
) -> None:
    unpromised = call(tally, 3, outcome="unreached", promised=None)
    calls = [call(tally, 1), call(tally, 2), unpromised]

    lost = proof(tally, calls=calls, rows=[row(tally, 1), row(tally, 2)])

    assert lost.problems() == ["calls that the provider saw have no row"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"exit_status": 3}, "the gateway's exit status is not 0"),
        ({"report": {"unaccounted": 1}}, "the shutdown report does not add up"),
        ({"report": {}}, "the shutdown report does not add up"),
        ({"interrupted": []}, "no call was running at SIGTERM"),
        ({"failed_early": [None]}, "calls failed before SIGTERM"),
        ({"seen_by_provider": ["demo-1", "demo-1"]}, "the provider saw a call twice"),
    ],
)
def test_a_run_that_shows_nothing_is_no_proof(
    tally: ModuleType, changes: dict[str, Any], problem: str
) -> None:
    assert proof(tally, **changes).problems() == [problem]


def test_an_answer_without_a_promise_is_no_proof(tally: ModuleType) -> None:
    calls = [call(tally, 1, promised=None), call(tally, 2), call(tally, 3)]

    assert proof(tally, calls=calls).problems() == ["answers came without a promise (x-usage-id)"]


def test_a_gateway_that_answers_nobody_is_no_proof(tally: ModuleType) -> None:
    calls = [call(tally, 1, outcome="refused", promised=None)]

    idle = proof(tally, calls=calls, rows=[], seen_by_provider=[])

    assert idle.problems() == ["no call was answered"]


@pytest.mark.parametrize("stored", [str(UUID(int=1)), UUID(int=1).bytes, UUID(int=1).hex])
def test_rows_are_read_from_the_file_however_ids_are_stored(
    tally: ModuleType, tmp_path: Path, stored: str | bytes
) -> None:
    path = tmp_path / "usage.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE usage_logs (id, request_id, status)")
        database.execute("INSERT INTO usage_logs VALUES (?, 'demo-1', 'success')", (stored,))

    assert tally.read_rows(path) == [row(tally, 1)]


def test_a_file_that_is_not_there_is_not_made(tally: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tally.read_rows(tmp_path / "usage.db")

    assert list(tmp_path.iterdir()) == []
