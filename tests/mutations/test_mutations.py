"""The suite on trial: known faults are put back into a copy of the source, and their cases have to turn red.

Each ``*.diff`` here is one fault: what it is, which cases must fail, and the change. It is applied to a copy
of the tree in a temporary folder, where a Python of its own imports the copy, children included. A change
that no longer fits the source is red too. The table of results is made by ``tests/report.py``.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sysconfig
import venv
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COPIED = ("backends", "gateway", "load", "config", "tests", "setup.cfg")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.egg-info", "results", "mutations")
BROKEN = re.compile(r"\b(?:Attribute|Import|Name|Type)Error: .*")
"""What a case or the core's log says when a fault calls what is no longer there, which proves nothing."""
CASE_S = 60
RUN_S = 170


@dataclass(frozen=True)
class Hunk:
    """``before`` stands once in the file, and becomes ``after``."""

    path: str
    before: str
    after: str


@dataclass
class Mutation:
    """One known fault. ``red`` are the node ids of the cases that have to notice it."""

    name: str
    what: str = ""
    red: list[str] = field(default_factory=list)
    hunks: list[Hunk] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Mutation:
        """The mutation in a file: headers ``What:`` and ``Red:``, then a diff without line numbers."""
        head, *changes = path.read_text().split("\n--- ")
        mutation = cls(path.stem)
        for line in head.splitlines():
            key, _, value = line.partition(": ")
            if key == "What":
                mutation.what = value
            else:
                assert key == "Red", line
                mutation.red.append(value)
        for change in changes:
            names, *hunks = change.split("\n@@\n")
            mutation.hunks += [_hunk(names.splitlines()[0], text) for text in hunks]
        return mutation

    def apply(self, tree: Path) -> None:
        """Change the files of ``tree``. Raises ``AssertionError`` if the source is no longer what it was."""
        for hunk in self.hunks:
            path = tree / hunk.path
            text = path.read_text()
            times = text.count(hunk.before)
            assert times == 1, f"{self.name}: what it changes stands {times} times in {hunk.path}"
            path.write_text(text.replace(hunk.before, hunk.after))


def _hunk(path: str, text: str) -> Hunk:
    lines = [(line[:1] or " ", line[1:] + "\n") for line in text.removesuffix("\n").split("\n")]
    before = "".join(line for sign, line in lines if sign in " -")
    after = "".join(line for sign, line in lines if sign in " +")
    return Hunk(path, before, after)


MUTATIONS = [Mutation.read(path) for path in sorted(HERE.glob("*.diff"))]
ALL_CASES = sorted({case for mutation in MUTATIONS for case in mutation.red})


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as it is, compiled once for all that is copied from it."""
    tree = tmp_path_factory.mktemp("original")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=NOT_COPIED)
        else:
            shutil.copy(ROOT / name, tree / name)
    for package in ("backends", "gateway"):
        compileall.compile_dir(tree / package, quiet=1)
    return tree


class Laboratory:
    """A copy of the tree, and a Python that finds our packages there before anywhere else. ``said`` is what
    the last run printed, the log of the red cases with it."""

    said = ""

    def __init__(self, original: Path, folder: Path) -> None:
        self.tree = folder / "tree"
        self._bin = folder / "python" / "bin"
        shutil.copytree(original, self.tree)
        venv.EnvBuilder(symlinks=True).create(folder / "python")
        (site,) = (folder / "python" / "lib").glob("python*/site-packages")
        # A .pth file and not PYTHONPATH: it reaches children whatever environment they are given. Our own
        # packages come before those of the environment that this test runs in, editable or not.
        ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        sites = "".join(f"import site; site.addsitedir({path!r})\n" for path in sorted(ours))
        (site / "laboratory.pth").write_text(f"{self.tree}\n{sites}")

    def run(self, cases: list[str]) -> dict[str, str]:
        """Run ``cases``; for each what went wrong, or nothing."""
        report = self.tree / "report.xml"
        report.unlink(missing_ok=True)
        command = [
            *(str(self._bin / "python"), "-m", "pytest", *cases, f"--junitxml={report}"),
            *("-p", "no:cacheprovider", "--tb=short", f"--timeout={CASE_S}"),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"TALLYGATE_COPY_UNDER_TEST": str(self.tree), "HYPOTHESIS_PROFILE": "glance"}
        answer = subprocess.run(
            command, cwd=self.tree, env=environment, capture_output=True, text=True, timeout=RUN_S
        )
        self.said = answer.stdout + answer.stderr
        assert answer.returncode in (0, 1), self.said
        return _results(report, cases)


def _results(report: Path, cases: list[str]) -> dict[str, str]:
    """For each case the first words of its failures, all parameters taken together."""
    results: dict[str, str] = {}
    for element in ElementTree.parse(report).iter("testcase"):
        name = f"{element.get('classname')}.{element.get('name')}"
        case = next(case for case in cases if _is_of(name, case))
        failure = element.find("failure")
        assert element.find("skipped") is None, f"{name} was skipped"
        told = "" if failure is None else failure.get("message", "")
        results[case] = results.get(case, "") or told
    assert results.keys() == set(cases), "a case was not run"
    return results


def _is_of(name: str, case: str) -> bool:
    dotted = case.replace(".py::", ".").replace("::", ".").replace("/", ".")
    return name == dotted or name.startswith(f"{dotted}[")


@pytest.fixture
def laboratory(original: Path, tmp_path: Path) -> Laboratory:
    return Laboratory(original, tmp_path)


def test_the_copy_as_it_is_is_green(laboratory: Laboratory) -> None:
    results = laboratory.run(ALL_CASES)

    assert {case: told for case, told in results.items() if told} == {}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_known_fault_turns_its_cases_red(
    mutation: Mutation, laboratory: Laboratory, record_property: Callable[[str, object], None]
) -> None:
    record_property("mutation", mutation.name)
    record_property("what", mutation.what)
    mutation.apply(laboratory.tree)

    results = laboratory.run(mutation.red)

    for case, told in results.items():
        record_property("red" if told else "green", case)
    assert mutation.what and results
    assert BROKEN.findall(laboratory.said) == [], "the fault is at fault"
    assert [case for case, told in results.items() if not told] == [], "a case did not notice"


def test_a_change_that_does_not_fit_is_red(laboratory: Laboratory) -> None:
    stale = Mutation("stale", hunks=[Hunk("backends/writer.py", "no such line\n", "")])

    with pytest.raises(AssertionError, match="stands 0 times in backends/writer.py"):
        stale.apply(laboratory.tree)


def test_a_change_that_changes_nothing_is_green(laboratory: Laboratory) -> None:
    """Or all the others would prove is that a copy fails."""
    line = '"""The batching core:'
    harmless = Mutation("harmless", hunks=[Hunk("backends/writer.py", line, line + " no,")])
    harmless.apply(laboratory.tree)
    case = "tests/core/test_stop.py::test_01_queued_rows_flushed_on_stop"

    assert laboratory.run([case]) == {case: ""}


def test_the_copy_is_what_runs(laboratory: Laboratory) -> None:
    """In the Python of the laboratory and in its children, whatever their environment says."""
    program = "import backends, gateway; print(backends.__file__, gateway.__file__)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}], env={{}}, cwd='/')"

    answer = subprocess.run(
        [str(laboratory._bin / "python"), "-c", f"{program}\n{child}"],
        cwd="/",
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )

    files = answer.stdout.split()
    assert len(files) == 4, answer.stderr
    assert all(Path(file).is_relative_to(laboratory.tree) for file in files)
