"""Every place where rows can be kept: which driver it needs, and which fixture gives one that is empty.

A fixture gives an object whose ``options(**more)`` are a sink's options for that place; memory and sqlite
need none. A place whose driver this environment lacks is another environment's to test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from backends.registry import sinks
from backends.sink import LogSink, SinkOptions


@dataclass(frozen=True)
class Place:
    """``sink`` is the name in the configuration, ``more`` are options beside the address."""

    sink: str
    driver: str | None = None
    fixture: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> type[LogSink]:
        """The sink's class; the test is skipped where its driver is missing."""
        if self.driver and find_spec(self.driver) is None:
            pytest.skip(f"{self.driver} is not installed: pip install 'tallygate[{self.sink}]'")
        return sinks.load(self.sink)

    def options(self, request: pytest.FixtureRequest, folder: Path) -> SinkOptions:
        """Options for an empty place of the test's own."""
        if self.fixture:
            options: SinkOptions = request.getfixturevalue(self.fixture).options(**self.more)
            return options
        own = {"path": folder / "usage.db"} if self.sink == "sqlite" else {"database": f"test-{uuid4()}"}
        return self.load().Options.model_validate(own)


PLACES: Mapping[str, Place] = {
    "memory": Place("memory"),
    "sqlite": Place("sqlite", "sqlite3"),
    "postgres": Place("postgres", "asyncpg", "postgres"),
    "postgres-partitioned": Place("postgres", "asyncpg", "postgres", {"partition_by": "month"}),
    "mongo-motor": Place("mongo", "motor", "mongo", {"driver": "motor"}),
    "mongo-pymongo": Place("mongo", "pymongo", "mongo", {"driver": "pymongo"}),
    "clickhouse": Place("clickhouse", "clickhouse_connect", "clickhouse"),
}
