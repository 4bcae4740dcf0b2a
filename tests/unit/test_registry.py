"""Names in, classes out: the strategy's grammar and the registry of sinks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import backends
from backends.errors import SinkDriverMissing, SinkNotFound, StrategyError
from backends.memory import MemorySink
from backends.registry import BUILT_IN, SinkRegistry, Strategy, parse_strategy, sinks
from backends.sqlite import SqliteSink

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a distribution that declares entry points, and modules with the given text."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(distribution: str, entry_points: dict[str, str], **modules: str) -> None:
        folder = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {target}" for name, target in entry_points.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[tallygate.sinks]", *lines, ""]))
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)

    return make


# --- the grammar


@pytest.mark.parametrize(
    ("text", "strategy", "spelling"),
    [
        ("batch:postgres", Strategy("batch", "postgres"), "batch:postgres"),
        ("single:postgres", Strategy("single", "postgres"), "single:postgres"),
        ("postgres", Strategy("batch", "postgres"), "batch:postgres"),
        ("noop", Strategy("noop", None), "noop"),
        ("batch", Strategy("batch", "sqlite"), "batch:sqlite"),
        ("single", Strategy("single", "sqlite"), "single:sqlite"),
        ("my_sink-2", Strategy("batch", "my_sink-2"), "batch:my_sink-2"),
        ("  single:mongo\n", Strategy("single", "mongo"), "single:mongo"),
    ],
)
def test_the_grammar_is_read_and_written(text: str, strategy: Strategy, spelling: str) -> None:
    assert parse_strategy(text) == strategy
    assert str(strategy) == spelling
    assert parse_strategy(spelling) == strategy


def test_a_bare_kind_keeps_the_sink_that_was_named_before() -> None:
    assert parse_strategy("single", default_sink="mongo") == Strategy("single", "mongo")
    assert parse_strategy("batch", default_sink="mongo") == Strategy("batch", "mongo")
    assert parse_strategy("sqlite", default_sink="mongo") == Strategy("batch", "sqlite")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":",
        "batch:",
        ":sqlite",
        "batch:noop",
        "single:batch",
        "noop:sqlite",
        "stream:sqlite",
        "batch:single:sqlite",
        "batch: sqlite",
        "Batch:sqlite",
        "SQLITE",
        "sqlite:///usage.db",
        "2fast",
        "sqlité",
        "None",
    ],
)
def test_anything_else_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(StrategyError, match=r"\[batch:\|single:\]SINK in lower case, or noop"):
        parse_strategy(text)


# --- the registry


def test_the_built_in_sinks_are_found_by_name() -> None:
    assert set(sinks.names()) >= {"memory", "sqlite"}
    assert sinks.load("memory") is MemorySink
    assert sinks.load("sqlite") is SqliteSink


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        SinkNotFound,
        match=r"no sink is called 'postgress'; there are: clickhouse, memory, mongo, postgres, sqlite",
    ):
        SinkRegistry().load("postgress")


def test_only_the_named_sink_is_imported() -> None:
    program = (
        "import sys, backends.registry as r; r.sinks.names(); r.sinks.load('memory'); "
        "print(*(f'backends.{name}' in sys.modules for name in ('memory', 'sqlite', 'postgres')))"
    )
    home = Path(backends.__file__).parent.parent

    result = subprocess.run(
        [sys.executable, "-c", program], cwd=home, capture_output=True, text=True, check=True
    )

    assert result.stdout.split() == ["True", "False", "False"]


def test_a_registered_class_is_loaded_on_demand() -> None:
    registry = SinkRegistry()

    registry.register("mine", "backends.memory:MemorySink")

    assert "mine" in registry.names()
    assert registry.load("mine") is MemorySink
    assert "mine" not in SinkRegistry().names()


def test_an_installed_distribution_offers_its_sink(install: Install) -> None:
    install("acme-sink", {"acme": "acme_sink:AcmeSink"}, acme_sink="class AcmeSink: pass")

    assert "acme" in sinks.names()
    assert sinks.load("acme").__name__ == "AcmeSink"


def test_a_name_claimed_twice_names_both_owners(install: Install) -> None:
    install("acme-one", {"acme": "one:Sink"})
    install("acme-two", {"acme": "two:Sink", "sqlite": "two:Sink"})

    with pytest.raises(StrategyError, match=r"'acme' is claimed by acme-\w+ .* and acme-\w+ ") as caught:
        sinks.load("acme")
    with pytest.raises(StrategyError, match=r"tallygate \(.sqlite:SqliteSink\) and acme-two \(two:Sink\)"):
        sinks.load("sqlite")

    assert "acme-one" in str(caught.value)
    assert sinks.load("memory") is MemorySink


def test_a_registered_name_must_be_free() -> None:
    registry = SinkRegistry()
    registry.register("mine", "a:B")

    for name in ("mine", "sqlite"):
        with pytest.raises(StrategyError, match=rf"{name!r} is claimed by .* and register\(\)"):
            registry.register(name, "c:D")


@pytest.mark.parametrize("name", ["batch", "single", "noop", "", "My Sink", "a:b", "Acme"])
def test_a_name_that_the_grammar_cannot_say_is_refused(name: str) -> None:
    with pytest.raises(StrategyError, match="cannot be the name of a sink"):
        SinkRegistry().register(name, "a:B")


def test_a_distribution_with_a_reserved_name_is_named(install: Install) -> None:
    install("acme-sink", {"noop": "acme_sink:AcmeSink"})

    with pytest.raises(StrategyError, match=r"'noop' cannot be the name of a sink \(acme-sink\)"):
        sinks.load("sqlite")


# --- what cannot be imported


def test_a_missing_driver_of_ours_names_the_extra(install: Install) -> None:
    install("unrelated", {}, needs_driver="import a_driver_that_is_not_there")
    registry = SinkRegistry(built_in={**BUILT_IN, "postgres": "needs_driver:PostgresSink"})

    with pytest.raises(SinkDriverMissing, match=r"needs 'a_driver.*pip install 'tallygate\[postgres\]'"):
        registry.load("postgres")


def test_a_missing_driver_of_somebody_elses_sink_names_its_owner(install: Install) -> None:
    install("acme-sink", {"acme": "acme_sink:AcmeSink"}, acme_sink="import a_driver_that_is_not_there")

    with pytest.raises(SinkDriverMissing, match="needs 'a_driver_that_is_not_there'.*acme-sink asks for"):
        sinks.load("acme")


@pytest.mark.parametrize("target", ["acme_gone:Sink", "acme_sink:Gone", "acme_sink", "acme_sink:not_a_class"])
def test_a_class_that_is_not_there_is_an_error_of_its_owner(install: Install, target: str) -> None:
    install("acme-sink", {"acme": target}, acme_sink="not_a_class = 1")

    with pytest.raises(StrategyError, match="acme-sink"):
        sinks.load("acme")


def test_a_bug_in_our_own_imports_is_not_called_a_missing_driver() -> None:
    registry = SinkRegistry(built_in={"broken": "backends.no_such_module:Sink"})

    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        registry.load("broken")
