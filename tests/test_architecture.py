"""Who may import whom, read from the syntax tree: an arrow that points upwards fails here, not in review."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
DRIVERS = {
    "sqlite3": (
        "backends.sqlite",
        "backends.sqlite_file",
        "backends.spool",
        "backends.dead_letters.store",
        "backends.store.sqlite",
    ),
    "asyncpg": ("backends.postgres", "backends.postgres_driver", "backends.store.postgres"),
    "motor": ("backends.mongo_driver",),
    "pymongo": (
        "backends.mongo",
        "backends.mongo_driver",
        "backends.mongo_pool",
        "backends.store.mongo",
        "backends.store.mongo_driver",
    ),
    "bson": ("backends.mongo", "backends.mongo_driver", "backends.store.mongo_driver"),
    "clickhouse_connect": ("backends.clickhouse_driver",),
    "any_llm": ("gateway.providers.any_llm.opening",),
}
"""Who may import each. The local files are SQLite's too, whatever the sink. any_llm is a provider's."""
WITHOUT_ASYNCIO = ("backends.dispatch", "backends.ledger", "backends.pace", "backends.retry", "backends.room")
NOT_BLACK_BOX = ("load.bench.core", "load.bench.drivers", "load.bench.sinks", "load.bench.stopping")
"""Programs in load/ that measure our own parts; all others talk to the gateway from outside."""

Sources = Mapping[str, str]
"""Python text by dotted module name; a package is named ``package.__init__``."""


class Import(NamedTuple):
    """``name`` of ``target`` (``from target import name``), or ``target`` itself when ``name`` is empty."""

    module: str
    line: int
    target: str
    name: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """The modules this may load: ``from a import b`` may mean the module ``a.b``."""
        return (self.target, f"{self.target}.{self.name}") if self.name else (self.target,)

    def reaches(self, package: str) -> bool:
        return any(is_within(path, package) for path in self.paths)

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.paths[-1]}"


def is_within(path: str, package: str) -> bool:
    return path == package or path.startswith(f"{package}.")


def read_sources(*folders: str) -> dict[str, str]:
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in files}


def imports(sources: Sources) -> Iterator[Import]:
    for module, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from (Import(module, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                target = absolute(module, node)
                yield from (Import(module, node.lineno, target, alias.name) for alias in node.names)
            elif isinstance(node, ast.Call) and (name := imported_by_call(node)):
                yield Import(module, node.lineno, name)


def absolute(module: str, node: ast.ImportFrom) -> str:
    """The full name behind ``from ..x import y`` in ``module``."""
    package = module.split(".")[: -node.level] if node.level else []
    return ".".join([*package, *([node.module] if node.module else [])])


def imported_by_call(call: ast.Call) -> str | None:
    """The name in ``import_module("x")`` and ``__import__("x")``, when it is written out."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if called not in ("import_module", "__import__") or not call.args:
        return None
    name = call.args[0]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def offered_names(backends_init: str) -> frozenset[str]:
    """What ``__all__`` lists. It has to be one literal, or nobody can read it."""
    for node in ast.parse(backends_init).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            return frozenset(ast.literal_eval(node.value))
    raise AssertionError("backends/__init__.py has no __all__")


# --- the rules: each takes sources and gives the imports that break it


def upward_imports_of_backends(sources: Sources) -> list[Import]:
    return [
        each
        for each in imports(sources)
        if is_within(each.module, "backends") and (each.reaches("gateway") or each.reaches("aiohttp.web"))
    ]


def drivers_outside_their_sink(sources: Sources) -> list[Import]:
    return [
        each
        for each in imports(sources)
        for driver, owners in DRIVERS.items()
        if each.reaches(driver) and not any(is_within(each.module, owner) for owner in (*owners, "load"))
    ]


def asyncio_in_pure_modules(sources: Sources) -> list[Import]:
    return [each for each in imports(sources) if each.module in WITHOUT_ASYNCIO and each.reaches("asyncio")]


def private_imports_of_gateway(sources: Sources) -> list[Import]:
    offered = offered_names(sources["backends.__init__"])
    return [
        each
        for each in imports(sources)
        if is_within(each.module, "gateway")
        and each.reaches("backends")
        and not (each.target == "backends" and each.name in offered)
    ]


def own_code_in_load(sources: Sources) -> list[Import]:
    return [
        each
        for each in imports(sources)
        if is_within(each.module, "load")
        and each.module not in NOT_BLACK_BOX
        and (each.reaches("gateway") or each.reaches("backends"))
    ]


Rule = Callable[[Sources], list[Import]]
RULES: tuple[Rule, ...] = (
    upward_imports_of_backends,
    drivers_outside_their_sink,
    asyncio_in_pure_modules,
    private_imports_of_gateway,
    own_code_in_load,
)
PLANTED: tuple[tuple[Rule, str, str], ...] = (
    (upward_imports_of_backends, "backends.writer", "import gateway"),
    (upward_imports_of_backends, "backends.writer", "from gateway.errors import GatewayError"),
    (upward_imports_of_backends, "backends.testing.suite", "def f():\n    import gateway.app as app"),
    (upward_imports_of_backends, "backends.writer", "from aiohttp import web"),
    (upward_imports_of_backends, "backends.writer", "import aiohttp.web"),
    (upward_imports_of_backends, "backends.writer", "from aiohttp.web import Application"),
    (
        upward_imports_of_backends,
        "backends.writer",
        "importlib.import_module('gateway.app')",
    ),
    (upward_imports_of_backends, "backends.writer", "__import__('gateway')"),
    (drivers_outside_their_sink, "backends.writer", "import sqlite3"),
    (drivers_outside_their_sink, "backends.sqlite", "import asyncpg"),
    (drivers_outside_their_sink, "backends.mongo_helpers", "from pymongo.errors import PyMongoError"),
    (drivers_outside_their_sink, "gateway.app", "import clickhouse_connect.driver"),
    (asyncio_in_pure_modules, "backends.ledger", "import asyncio"),
    (asyncio_in_pure_modules, "backends.retry", "from asyncio import Event"),
    (asyncio_in_pure_modules, "backends.retry", "from asyncio.locks import Event"),
    (private_imports_of_gateway, "gateway.calls", "import backends"),
    (private_imports_of_gateway, "gateway.calls", "from backends import *"),
    (private_imports_of_gateway, "gateway.calls", "from backends import ledger"),
    (private_imports_of_gateway, "gateway.calls", "from backends.record import UsageRecord"),
    (private_imports_of_gateway, "gateway.handlers.usage", "from ...backends import ledger"),
    (own_code_in_load, "load.demo", "from backends import UsageRecord"),
    (own_code_in_load, "load.fake_provider", "import gateway.settings"),
)
ALLOWED = {
    "backends.__init__": "from .record import UsageRecord\n__all__ = ['UsageRecord']",
    "backends.writer": "import asyncio\nimport aiohttp\nfrom .ledger import Ledger\nfrom . import retry",
    "backends.ledger": "from .record import UsageRecord",
    "backends.testing.suite": "from ..gateway import looks_like_it_but_is_ours",
    "backends.sqlite": "import sqlite3",
    "backends.spool.store": "import sqlite3",
    "backends.mongo_driver": "from pymongo import errors\nimport motor.motor_asyncio",
    "gateway.calls": "from backends import UsageRecord\nfrom .errors import GatewayError",
    "gateway.backends_view": "from .backends_list import names",
    "load.demo": "import sqlite3_like, aiohttp",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    sources = read_sources("backends", "gateway", "load")

    assert {"backends.ledger", "gateway.keys", "load.demo"} <= set(sources)
    assert [str(each) for each in rule(sources)] == []


@pytest.mark.parametrize(("rule", "module", "text"), PLANTED)
def test_a_planted_violation_is_caught(rule: Rule, module: str, text: str) -> None:
    sources = {"backends.__init__": ALLOWED["backends.__init__"], module: text}

    assert [each.module for each in rule(sources)] == [module]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_what_is_allowed_is_not_accused(rule: Rule) -> None:
    assert rule(ALLOWED) == []


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _, _ in PLANTED} == set(RULES)


def test_the_modules_that_the_rules_name_exist() -> None:
    sources = read_sources("backends")

    assert {"backends.sqlite", *WITHOUT_ASYNCIO} <= set(sources)


def test_backends_has_every_name_it_offers() -> None:
    backends = importlib.import_module("backends")

    assert [name for name in backends.__all__ if not hasattr(backends, name)] == []
    assert sorted(set(backends.__all__)) == sorted(backends.__all__)


def test_importing_our_packages_loads_no_driver() -> None:
    drivers = set(DRIVERS) - {"sqlite3"}  # of the standard library, and the spool's too
    program = f"import sys, backends, gateway; print(sorted({drivers} & set(sys.modules)))"

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert (answer.stdout.strip(), answer.stderr) == ("[]", "")
