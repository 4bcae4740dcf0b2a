"""What is promised is there, in the program and in its pages, and nothing else is there unsaid."""

from __future__ import annotations

import argparse
import configparser
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
import yaml
from aiohttp import web
from promises import CHANGELOG, CONTRACT, EXAMPLE, EXAMPLE_VARIABLES, ROOT, quoted, told
from pydantic import BaseModel
from servers.places import PLACES

import gateway.formats
from backends import Strategy, WriterStats
from backends.log_writer import LogWriter
from backends.record import (
    COLUMNS,
    MAX_ERROR_MESSAGE,
    MAX_ROW_BYTES,
    MAX_TAGS,
    MAX_TEXT,
    EndReason,
    Status,
    UsageSource,
)
from backends.reports import LedgerCounts, StopReport, WriterState
from backends.usage_query import FILTER_COLUMNS, GROUP_COLUMNS, GROUP_TIMES
from gateway import cli
from gateway.config_file import read_config_file
from gateway.config_schema import below, fields_of
from gateway.management import requests
from gateway.openapi.table import TABLE
from gateway.pricing import Price
from gateway.routes import add_routes
from gateway.sections import PriceSettings, Settings, sink_options
from gateway.settings import load_settings

SQL = ROOT / "backends" / "sql"
SINKS = ("sqlite", "postgres", "mongo", "clickhouse")


def every(section: Mapping[str, Any], *names: str) -> set[str]:
    return set(chain.from_iterable(section[name] for name in names))


# --- commands


def commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Each command that does something, with its options."""
    below = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not below:
        yield " ".join(path), set(chain.from_iterable(each.option_strings for each in parser._actions))
    for action in below:
        for name, command in action.choices.items():
            yield from commands(command, (*path, name))


def test_the_commands_are_those_of_the_contract() -> None:
    there = dict(commands(cli._parser()))
    promised = {
        tuple(each.split(" --")[0].split()): set(re.findall(r"--\w+", each))
        for each in CONTRACT["commands"]["promised"]
    }

    assert there.keys() == {" ".join(path) for path in promised} | set(CONTRACT["commands"]["ours"])
    for path, options in promised.items():
        assert options <= there[" ".join(path)], path
    assert all("--config" in options for options in there.values())


def test_the_reference_tells_every_command_and_the_changelog_ours() -> None:
    named = [each.removeprefix("tallygate ") for row in told("Commands") for each in quoted(row[0])]

    assert sorted(named) == sorted(dict(commands(cli._parser())))
    assert [each for each in CONTRACT["commands"]["ours"] if f"`tallygate {each}`" not in CHANGELOG] == []


def test_make_has_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE))
    promised = set(CONTRACT["make"]["promised"])

    assert promised <= targets
    assert targets - promised == set(CONTRACT["make"]["ours"])


def test_tox_has_every_environment() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    promised, listed = CONTRACT["tox"], parser["tox"]["env_list"].split()
    matrix, shares, sdk, *others = listed

    assert matrix == "py{311,312,313}-{" + ",".join(promised["sinks"]) + "}"
    assert promised["pythons"] == ["py311", "py312", "py313"]
    assert shares == "py{311,312,313}-{calls,process}"  # beside the contract's: most of the sqlite one's time
    assert sdk == "py{311,312,313}-anyllm"  # beside the contract's: the SDK needs an environment of its own
    assert others == promised["others"]
    assert all(f"testenv:{name}" in parser for name in others)


# --- settings


def leaves(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from leaves(value, (*path, name))
    else:
        yield path, values


def example() -> dict[str, Any]:
    return read_config_file(EXAMPLE, EXAMPLE_VARIABLES).values


def default_of(path: tuple[str, ...], settings: Settings) -> Any:
    """As it is in force when nobody says anything."""
    value: Any = settings
    for name in path:
        value = value[name] if isinstance(value, Mapping) else getattr(value, name)
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    return f"./{value}" if isinstance(value, Path) else value


def loaded(name: str) -> type[Any]:
    return next(place for place in PLACES.values() if place.sink == name).load()


@pytest.mark.parametrize("sink", SINKS)
def test_the_example_is_a_configuration(sink: str) -> None:
    loaded(sink)
    variables = {**EXAMPLE_VARIABLES, "LOG_WRITER_STRATEGY": f"batch:{sink}"}

    settings = load_settings(EXAMPLE, variables)

    assert settings.log_writer_strategy == Strategy("batch", sink)
    assert settings.models["fast"].fallbacks == ["anthropic:claude-haiku"]
    assert sink_options(settings).model_fields_set == set(example()["sinks"][sink])


def test_what_the_example_shows_are_the_defaults() -> None:
    shown = {name: example()[name] for name in CONTRACT["settings"]["with_defaults"] if name != "sinks"}
    there = load_settings(None, {"GATEWAY_MASTER_KEY": "tg-m"})
    declared = {"batching": set(CONTRACT["settings"]["declared"]["sqlite"])}

    different = {
        path: (value, default_of(path, there))
        for path, value in leaves(shown)
        if value != default_of(path, there) and path[-1] not in declared.get(path[0], ())
    }
    assert different == {}


@pytest.mark.parametrize("sink", SINKS)
def test_what_the_example_shows_of_a_sink_are_its_defaults(sink: str) -> None:
    options = loaded(sink).Options()

    for path, value in leaves(example()["sinks"][sink]):
        assert default_of(path, options) == value, path


@pytest.mark.parametrize("sink", SINKS)
def test_a_sink_has_the_batching_of_the_contract_but_for_what_it_declares(sink: str) -> None:
    declared = set(loaded(sink).batching_defaults)
    promised = CONTRACT["settings"]["declared"].get(sink, [])

    assert promised == ["*"] or declared == set(promised)


def test_what_else_is_promised_are_the_defaults() -> None:
    values = {"providers": {"local": {"type": "openai", "base_url": "http://h", "api_key": "none"}}}
    there = Settings.model_validate(values)

    for key, value in CONTRACT["settings"]["more_defaults"].items():
        assert default_of(tuple(key.split(".")), there) == value, key


def keys_of(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that can be written; ``*`` for a name that anybody may choose."""
    named = fields_of(schema)
    if named is None and (inner := below(schema, "*")) is not Any and fields_of(inner) is not None:
        named = {"*": inner}
    if named is None:
        yield path
        return
    for name, each in named.items():
        yield from keys_of(each, (*path, name))


def as_chosen(path: tuple[str, ...], values: Any) -> Iterator[tuple[str, ...]]:
    """Those keys of ``path`` that a file has, its own names for ``*``."""
    if not path:
        yield ()
        return
    name, *rest = path
    here = values if isinstance(values, Mapping) else dict(enumerate(values or ()))
    for key, value in here.items():
        if name in ("*", key):
            yield from ((name, *each) for each in as_chosen(tuple(rest), value))


def is_written(path: tuple[str, ...], values: Any) -> bool:
    return next(as_chosen(path, values), None) is not None


@pytest.mark.parametrize("sink", SINKS)
def test_every_key_stands_in_the_file_of_its_sink(sink: str) -> None:
    text = (ROOT / "config" / f"{sink}.yml").read_text()
    values = yaml.safe_load(text)
    values["pricing"] = {
        "m": dict.fromkeys(each.name for each in fields(Price))
    }  # see docs/keys-and-budgets.md
    schemas = {name: field.annotation for name, field in Settings.model_fields.items() if name != "sinks"}
    options = {("sinks", sink, name) for name in loaded(sink).Options.model_fields}

    missing = [key for key in (*keys_of(schemas), *options) if not is_written(key, values)]
    # A key that the file's own providers have no use for is shown in a comment.
    assert [key for key in missing if f"\n#   {key[-1]}: " not in text] == []


def test_every_part_of_a_price_is_told() -> None:
    page = (ROOT / "docs" / "keys-and-budgets.md").read_text()

    assert [name for name in PriceSettings.model_fields if f"`{name}`" not in page] == []


# --- endpoints


def plain(path: str) -> str:
    return re.sub(r"\{(\w+):[^}]+\}", r"{\1}", path)


def endpoints() -> set[str]:
    return every(CONTRACT["endpoints"], "inference", "no_calls", "management", "operations")


def test_the_table_has_the_endpoints_of_the_contract_and_no_others() -> None:
    assert {f"{each.method} {plain(each.path)}" for each in TABLE} == endpoints()


def test_the_routes_are_those_of_the_contract() -> None:
    app = web.Application()
    add_routes(app)

    routes = {f"{route.method} {plain(route.resource.canonical)}" for route in app.router.routes()}
    assert {each for each in routes if not each.startswith("HEAD")} == endpoints()


def test_every_call_has_a_format() -> None:
    called = {each.removeprefix("POST ") for each in CONTRACT["endpoints"]["inference"]}

    assert set(gateway.formats.BY_PATH) == {*called, "/v1/messages/count_tokens"}


def test_the_pages_tell_every_endpoint() -> None:
    named = [each for row in told("Endpoints") for each in quoted(row[0])]
    readme = (ROOT / "README.md").read_text()
    paths = {each.removeprefix("POST ") for each in CONTRACT["endpoints"]["inference"]}

    assert sorted(named) == sorted(endpoints())
    assert [path for path in paths if f"`{path}`" not in readme] == []


@pytest.mark.parametrize(
    ("kind", "made", "changed"),
    [
        ("key", requests.KeyCreate, requests.KeyChange),
        ("user", requests.UserCreate, requests.UserChange),
        ("budget", requests.BudgetCreate, requests.BudgetChange),
        ("price", requests.PriceCreate, requests.PriceChange),
    ],
)
def test_what_is_managed_has_every_member(kind: str, made: type[BaseModel], changed: type[BaseModel]) -> None:
    members = set(CONTRACT["endpoints"]["members"][kind])

    assert members <= set(made.model_fields)
    assert members - set(changed.model_fields) <= {"user_id"}  # whose it is stays as it was


def test_usage_is_asked_for_as_promised() -> None:
    promised = CONTRACT["endpoints"]["usage"]
    described = {each.path: each for each in TABLE if each.method == "GET"}
    told_of = {each.name: each.schema for each in described["/v1/usage"].parameters}

    assert set(promised["filters"]) <= set(told_of)
    assert told_of["format"]["enum"] == promised["formats"]
    assert set(FILTER_COLUMNS) <= set(promised["filters"])
    assert [*GROUP_COLUMNS, *GROUP_TIMES] == promised["group_by"]


# --- columns


def test_a_row_has_the_columns_of_the_contract() -> None:
    promised = CONTRACT["columns"]

    assert sorted(COLUMNS) == sorted(promised["promised"])
    assert list(get_args(Status)) == promised["status"]
    assert list(get_args(EndReason)) == promised["end_reason"]
    assert list(get_args(UsageSource)) == promised["usage_source"]
    bounds = ("text_characters", "error_message_bytes", "tags_bytes", "row_bytes")
    assert [promised[name] for name in bounds] == [MAX_TEXT, MAX_ERROR_MESSAGE, MAX_TAGS, MAX_ROW_BYTES]


@pytest.mark.parametrize("sink", ["sqlite", "postgres", "clickhouse"])
def test_the_table_of_a_sink_has_the_columns_of_the_contract(sink: str) -> None:
    text = (SQL / f"{sink}.sql").read_text()
    if sink == "clickhouse":
        loaded(sink)
        from backends.clickhouse_schema import TYPES

        assert sorted(TYPES) == sorted(CONTRACT["columns"]["promised"])
        return
    body = re.search(r"CREATE TABLE (?:IF NOT EXISTS usage_logs|\{rows\}) \((.+?)\n\)", text, re.DOTALL)[1]

    columns = re.findall(r"^ +([a-z_]+) ", body, re.MULTILINE)
    assert sorted(columns) == sorted(CONTRACT["columns"]["promised"])


def test_the_documents_of_mongo_have_the_columns_of_the_contract() -> None:
    from backends.mongo_documents import FIELDS

    assert FIELDS - {"_id", "timestamp_us"} == set(CONTRACT["columns"]["promised"]) - {"id"}


def test_the_reference_tells_every_column_and_what_it_may_hold() -> None:
    rows = told("The usage row")
    values = {quoted(row[0])[0]: quoted(row[1]) for row in rows}

    assert sorted(chain.from_iterable(quoted(row[0]) for row in rows)) == sorted(COLUMNS)
    for name in ("status", "end_reason", "usage_source"):
        assert values[name] == CONTRACT["columns"][name]


# --- the ledger


def test_the_ledger_has_the_fields_and_states_of_the_contract() -> None:
    stats = WriterStats(state="new", strategy="noop", boot_id=UUID(int=0), counts=LedgerCounts())
    report = StopReport(stats=stats, outcome="drained", duration_s=0.0).to_json()

    assert list(stats.to_json()) == CONTRACT["ledger"]["fields"]
    assert [name for name in report if name not in stats.to_json()] == CONTRACT["ledger"]["report"]
    assert list(get_args(WriterState)) == CONTRACT["ledger"]["states"]
    assert all(f"``{state}``" in (LogWriter.__doc__ or "") for state in get_args(WriterState))


def test_the_reference_tells_every_field_of_the_ledger() -> None:
    rows = told("The ledger")

    assert sorted(chain.from_iterable(quoted(row[0]) for row in rows)) == sorted(CONTRACT["ledger"]["fields"])
    assert quoted(rows[0][1]) == CONTRACT["ledger"]["states"]


# --- metrics: what is shown is for tests/integration/test_contract_metrics.py


def test_the_reference_tells_every_metric_with_its_labels() -> None:
    promised = CONTRACT["metrics"]
    every_metric = {**promised["promised"], **promised["ours"], **promised["of_workers"]}
    page = {name: quoted(row[1]) for row in told("Metrics") for name in quoted(row[0])}

    assert page == every_metric


def test_the_changelog_says_why_there_are_metrics_beside_the_contracts() -> None:
    ours = {*CONTRACT["metrics"]["ours"], *CONTRACT["metrics"]["of_workers"]}

    assert [name for name in ours if f"`{name}" not in CHANGELOG] == []
