"""What the pages say about the tests is so: the cases and mutations that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOST_BATCH = (ROOT / "docs" / "the-lost-batch.md").read_text()
ROW = re.compile(r"^\| (?!what|-)(?P<what>.+?) \| (?P<cases>.+?) \| (?P<mutation>.+?) \|$", re.MULTILINE)


def names(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def mutations() -> dict[str, str]:
    return {path.stem: path.read_text() for path in (ROOT / "tests" / "mutations").glob("*.diff")}


def test_every_case_that_the_story_names_is_there() -> None:
    folders = (ROOT / "tests", ROOT / "backends" / "testing")
    source = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    defined = set(re.findall(r"^\s*(?:async )?def (test_\w+)|^(Test\w+) =", source, re.MULTILINE))
    known = {name for pair in defined for name in pair if name}
    named = {
        name for name in names(LOST_BATCH) if name.lower().startswith("test_") or name == "TestRandomHistory"
    }

    assert len(named) > 20
    assert named - known == set()


def test_the_story_has_a_line_for_every_mutation_with_cases_that_it_turns_red() -> None:
    rows = [(names(row["cases"]), names(row["mutation"])) for row in ROW.finditer(LOST_BATCH)]
    told = {mutation: cases for cases, found in rows for mutation in found}

    assert told.keys() == mutations().keys()
    for mutation, text in mutations().items():
        red = set(re.findall(r"^Red: .*?::(?:Test\w+::(?=test_))?(\w+)", text, re.MULTILINE))
        assert told[mutation] <= red, mutation
