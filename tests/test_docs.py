"""What the pages say is so: the cases, mutations, keys, reasons, metrics and commands that they name are
there."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from backends import BatchingOptions, LedgerCounts, NoopLogWriter, SpoolOptions
from backends.spool import spool, traffic
from gateway import cli
from gateway.metrics import Metrics
from gateway.routing import attempts, select
from gateway.sections import (
    CLOSING_S,
    CooldownSettings,
    DeadLetterSettings,
    ModelSettings,
    ProviderSettings,
    ShutdownSettings,
    StreamSettings,
)
from gateway.settings import load_settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
ROUTING = (ROOT / "docs" / "routing.md").read_text()
FOR_OPERATORS = pytest.mark.parametrize("page", [README, GUARANTEES], ids=["README", "guarantees"])
SECTIONS: dict[str, type[BaseModel]] = {
    "batching": BatchingOptions,
    "spool": SpoolOptions,
    "dead_letters": DeadLetterSettings,
    "streams": StreamSettings,
    "shutdown": ShutdownSettings,
    "cooldown": CooldownSettings,
}
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


# --- for operators


def source(*packages: str) -> str:
    paths = chain.from_iterable((ROOT / package).rglob("*.py") for package in packages)
    return "\n".join(path.read_text() for path in paths)


def part(heading: str) -> str:
    """What stands under a heading of the guarantees, up to the next one."""
    return GUARANTEES.partition(f"# {heading}\n")[2].partition("\n#")[0]


@FOR_OPERATORS
def test_every_key_that_a_page_names_is_one(page: str) -> None:
    named = re.findall(rf"`({'|'.join(SECTIONS)})\.(\w+)[`: ]", page)

    assert named
    assert [key for key in named if key[1] not in SECTIONS[key[0]].model_fields] == []


def test_the_guarantees_name_every_key_they_depend_on() -> None:
    words = set(re.findall(r"\w+", GUARANTEES))

    for section in (SpoolOptions, DeadLetterSettings, ShutdownSettings):
        assert set(section.model_fields) <= words


def test_the_sum_of_the_grace_period_is_that_of_the_defaults() -> None:
    names, numbers = re.search(
        r"```text\n(.+?) <= (?:.+)\n(.+)\n", part("How long the platform has to wait")
    ).groups()
    told = [float(each) for each in re.findall(r"\d+", numbers)]
    defaults = ShutdownSettings()
    steps = [getattr(defaults, name) for name in re.findall(r"\w+_s\b", names)]

    assert told == [*steps, CLOSING_S, sum(steps) + CLOSING_S, defaults.grace_s]


def test_the_guarantees_say_what_to_do_for_every_reason_to_be_degraded() -> None:
    told = re.findall(r"^\| `(\w+)` \|", part("How to see trouble"), re.MULTILINE)
    written = source("backends", "gateway")
    set_somewhere = re.findall(
        r'''(?:(?:degraded|reasons|_full)\[|_show\(|(?:late|letters) = \{)"(\w+)"''', written
    )

    assert set(told) == set(set_somewhere)


@FOR_OPERATORS
def test_every_metric_that_a_page_names_is_shown(page: str) -> None:
    metrics = Metrics()
    metrics.watch(NoopLogWriter())
    families = {each.name: each.type for each in metrics.registry.collect()}
    shown = {name + ("_total" if kind == "counter" else "") for name, kind in families.items()}
    states = {field.name for field in fields(LedgerCounts)} | {"unaccounted"}

    assert set(re.findall(r"gateway_\w+", page)) <= shown
    assert set(re.findall(r'state="(\w+)"', page)) <= states


@FOR_OPERATORS
def test_every_command_that_a_page_names_is_one(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"`tallygate ((?:logs )?[a-z-]+)", page))

    assert named
    for command in named:
        with pytest.raises(SystemExit) as ended:
            cli.main([*command.split(), "--help"])
        assert ended.value.code == 0, command


def test_the_cost_of_each_mode_that_is_measured_is_told() -> None:
    measured = list(importlib.import_module("bench.variants").SPOOLS)
    told = re.findall(r"^\| `(.+?)` \|", part("What it costs"), re.MULTILINE)

    assert measured and told == measured


def test_every_line_of_the_log_that_the_guarantees_name_is_written() -> None:
    named = set(re.findall(r"lines? `(\w+)`", GUARANTEES))

    assert len(named) > 2
    assert [event for event in named if f'"{event}"' not in source("backends", "gateway")] == []


def test_the_times_that_the_guarantees_give_in_words_are_those_of_the_code() -> None:
    assert "within a second is" in re.sub(r"\s+", " ", GUARANTEES) and spool.PATIENCE_S == 1
    assert "every 30 seconds" in GUARANTEES and traffic.LOOK_AFTER_S == 30
    assert "every five seconds" in GUARANTEES and traffic.LOOK_AFTER_ILL_S == 5


def test_the_example_of_routing_is_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yml"
    path.write_text(re.findall(r"```yaml\n(.+?)```", ROUTING, re.DOTALL)[0])

    settings = load_settings(path, {"OPENAI_API_KEY": "sk-1"})

    assert set(settings.models["fast"].model_fields_set) == set(ModelSettings.model_fields)


def test_routing_tells_every_key_and_every_way_to_select() -> None:
    told = set(re.findall(r"^\| `(\w+)` \|", ROUTING, re.MULTILINE))
    keys = re.findall(r"`(providers|models)\.NAME\.(\w+)`", ROUTING)
    fields = {"providers": ProviderSettings, "models": ModelSettings}

    assert told - {"select"} == set(get_args(ModelSettings.model_fields["select"].annotation))
    assert keys and all(key in fields[section].model_fields for section, key in keys)
    assert all(f"`cooldown.{key}`" in ROUTING for key in CooldownSettings.model_fields)
    for event in ("target_cools_down", "target_recovered"):
        assert f"`{event}`" in ROUTING and f'"{event}"' in source("gateway")


def test_the_numbers_that_routing_tells_are_those_of_the_code() -> None:
    text = re.sub(r"\s+", " ", ROUTING)

    assert "anything up to 0.25 s, 0.5 s, 1 s ... 4 s" in text
    assert (attempts.FIRST_PAUSE_S, attempts.LONGEST_PAUSE_S) == (0.25, 4)
    assert "longer than 10 s" in text and attempts.LONGEST_REST_S == 10
    assert "one call of twenty" in text and select.EXPLORED == 1 / 20
    assert "retries` further attempts (1, unless" in text
    assert ModelSettings.model_fields["retries"].default == 1
    assert "(408, 409, 425, 429))" in Path(attempts.__file__).read_text()
    assert "the statuses 408, 409, 425, 429 and 5xx" in text


@pytest.mark.parametrize(
    "page", sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))), ids=lambda path: path.name
)
def test_every_link_to_a_file_of_ours_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []
