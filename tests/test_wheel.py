"""What we ship: built once, the way it is published (sdist first, the wheel from it), and looked into."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = (
    "setup.cfg pyproject.toml MANIFEST.in README.md LICENSE CHANGELOG.md CONTRIBUTING.md Makefile tox.ini "
    "gateway backends tests load config docs"
).split()
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.egg-info", "data", "results")
BUILD_S = 150


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist and the wheel. Built from a copy: a stale build/ would end up in a wheel."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=NOT_SOURCE)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, cwd=tree)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return out


@pytest.fixture(scope="module")
def wheel_names(built: Path) -> list[str]:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def source_names(*patterns: str) -> set[str]:
    """The files of our two packages that fit one of ``patterns``, as a wheel would name them."""
    folders = (ROOT / "gateway", ROOT / "backends")
    found = (path for folder in folders for pattern in patterns for path in folder.rglob(pattern))
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_the_wheel_holds_our_two_packages_and_nothing_else(wheel_names: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}

    assert tops == {"backends", "gateway", f"tallygate-{version('tallygate')}.dist-info"}


def test_every_module_of_the_tree_is_in_the_wheel(wheel_names: list[str]) -> None:
    assert source_names("*.py") == {name for name in wheel_names if name.endswith(".py")}


def test_the_wheel_carries_types_statements_and_the_licence(wheel_names: list[str]) -> None:
    expected = {"gateway/py.typed", "backends/py.typed", "gateway/openapi/docs.html"} | source_names("*.sql")

    assert expected <= set(wheel_names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names)


def test_no_file_of_another_kind_leaks_into_the_wheel(wheel_names: list[str]) -> None:
    ours = [name for name in wheel_names if ".dist-info/" not in name]

    assert [name for name in ours if not name.endswith((".py", ".sql", "/py.typed", "/docs.html"))] == []


def test_the_sdist_carries_the_tests_and_the_examples(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"setup.cfg", "tox.ini", "config/quickstart.yml", "load/demo.py", "tests/test_wheel.py"} <= names


@pytest.mark.parametrize("package", ["backends", "gateway"])
def test_no_other_distribution_here_ships_a_package_of_our_name(package: str) -> None:
    """The names are common, and a second owner would overwrite our files without a word."""
    assert set(packages_distributions()[package]) == {"tallygate"}
