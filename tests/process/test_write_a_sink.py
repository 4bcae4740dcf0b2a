"""The page for those who write a sink, taken at its word: its blocks are built, installed, served and tested.

And the same sink with one bug each: a change to the page's own source, which a case of the kit has to name.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import yaml

PAGE = Path(__file__).parents[2] / "docs" / "write-a-sink.md"
FILE = re.compile(r"^\*\*`([\w.-]+)`\*\*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_S = 150
MODULE = "tallygate_cabinet"


@dataclass(frozen=True)
class Bug:
    """Changes to the sink of the page, and the case that says so."""

    name: str
    case: str
    changes: tuple[tuple[str, str], ...]

    def plant(self, source: str) -> str:
        for before, after in self.changes:
            assert source.count(before) == 1, f"{self.name}: {before!r} stands {source.count(before)} times"
            source = source.replace(before, after)
        return source


WRITES = "        return await self._run(lambda connection: _insert(connection, documents))\n"
TAKES = "        documents = _documents(batch)\n"
BEGINS = "        self._path = options.path\n"
BUGS = [
    Bug(
        "acknowledges_before_it_stores",
        "test_a_write_that_returned_is_in_the_database",
        (
            (
                WRITES,
                "        self.later = asyncio.ensure_future(\n"
                "            self._run(lambda connection: _insert(connection, documents))\n"
                "        )\n"
                "        return Committed(len(documents))\n",
            ),
        ),
    ),
    Bug(
        "duplicates_on_retry",
        "test_the_same_batch_twice_is_stored_once",
        (("usage (id TEXT PRIMARY KEY,", "usage (id TEXT,"), (' ON CONFLICT (id) DO NOTHING"', '"')),
    ),
    Bug(
        "loses_on_cancel",
        "test_cancel_at_every_step_flush",
        (
            (BEGINS, f"{BEGINS}        self._seen = set()\n"),
            (
                TAKES,
                f"{TAKES}"
                "        if batch.id in self._seen:\n"
                "            return Committed(0, len(documents))\n"
                "        self._seen.add(batch.id)\n"
                "        await self.ping()\n",  # cancelled here, the batch is taken for stored
            ),
        ),
    ),
    Bug(
        "keeps_the_callers_list",
        "test_the_batch_is_neither_changed_nor_kept",
        ((TAKES, f"{TAKES}        self.last = batch.rows\n"),),
    ),
]


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """The files of the page by their names."""
    return dict(FILE.findall(PAGE.read_text()))


@pytest.fixture(scope="module")
def installed(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the page's distribution is installed into, as ``pip`` does it, without a network."""
    source, target = tmp_path_factory.mktemp("cabinet"), tmp_path_factory.mktemp("installed")
    for name, text in files.items():
        (source / name).write_text(text)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index")
    options = ("--no-deps", "--no-build-isolation", "--target", str(target), str(source))
    answer = subprocess.run([*pip, *options], capture_output=True, text=True, timeout=RUN_S)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return target


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """On a file system in memory where there is one: the kit asks for some thousand commits."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tallygate-", dir=parent) as folder:
        yield Path(folder)


def run_kit(folder: Path, installed: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and report of pytest in ``folder``, as an author would run it there."""
    ours = ("PYTEST_", "PYTHON", "COV_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-rs", "--tb=line", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(installed), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )
    return answer.returncode, answer.stdout + answer.stderr


async def test_the_command_finds_the_sink_by_its_name_and_checks_it(
    run, configuration, files, installed, tmp_path
) -> None:
    env = {"PYTHONPATH": str(installed), "LOG_WRITER_STRATEGY": "batch:cabinet"}
    config = str(configuration(**yaml.safe_load(files["gateway.yml"])))

    status, out, err = await run("check", "--connect", "--config", config, env=env)

    assert (status, err) == (0, "")
    assert yaml.safe_load(out)["log_writer_strategy"] == "batch:cabinet"
    assert (tmp_path / "cabinet.db").exists()


async def test_a_sink_that_is_not_installed_is_one_line_and_exit_2(run, configuration) -> None:
    env = {"LOG_WRITER_STRATEGY": "batch:cabinet"}

    status, _, err = await run("check", "--config", str(configuration(sinks={})), env=env)

    assert status == 2
    (line,) = err.splitlines()
    assert "cabinet" in line


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_a_served_call_ends_in_a_row_of_the_sink(serve, files, installed, tmp_path, kind) -> None:
    env = {"PYTHONPATH": str(installed), "LOG_WRITER_STRATEGY": f"{kind}:cabinet"}
    async with serve(env=env, **yaml.safe_load(files["gateway.yml"])) as gateway:
        promised: UUID = await gateway.answered()
        assert await gateway.stop() == 0
        assert gateway.report["strategy"] == f"{kind}:cabinet"
        assert gateway.report["committed"] == 1

    with closing(sqlite3.connect(tmp_path / "cabinet.db")) as connection:
        (found,) = connection.execute("SELECT document FROM usage").fetchall()
    row = json.loads(found[0])
    assert (row["id"], row["status"], row["provider"]) == (str(promised), "success", "local")


def test_the_sink_passes_the_kit(files: dict[str, str], installed: Path, quick_folder: Path) -> None:
    for name in ("pyproject.toml", "test_cabinet.py"):
        (quick_folder / name).write_text(files[name])

    status, report = run_kit(quick_folder, installed)

    assert status == 0, report
    skipped = [line for line in report.splitlines() if line.startswith("SKIPPED")]
    assert [line for line in skipped if "not offered" not in line] == []
    for bug in BUGS:
        assert f"{bug.case} PASSED" in report


@pytest.fixture(scope="module")
def report_on_bugs(files: dict[str, str], installed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the kit says of every bug, each in a module of its own and all in one run."""
    folder = tmp_path_factory.mktemp("bugs")
    (folder / "pyproject.toml").write_text(files["pyproject.toml"])
    for bug in BUGS:
        (folder / f"{bug.name}.py").write_text(bug.plant(files[f"{MODULE}.py"]))
        (folder / f"test_{bug.name}.py").write_text(files["test_cabinet.py"].replace(MODULE, bug.name))
    cases = " or ".join(bug.case for bug in BUGS)
    status, report = run_kit(folder, installed, "-k", cases)
    assert status == 1, report
    return report


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_sink_with_a_planted_bug_fails_by_a_named_case(bug: Bug, report_on_bugs: str) -> None:
    """The bug's own case is red; some other bug's case is green, so it is not that nothing works."""
    told = [line for line in report_on_bugs.splitlines() if line.startswith(f"test_{bug.name}.py::")]

    assert any(f"::{bug.case} FAILED" in line for line in told), report_on_bugs
    assert any(" PASSED" in line for line in told), report_on_bugs
