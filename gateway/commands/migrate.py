"""``tallygate migrate``: the schemas of sink and store, made or brought up to this program's."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from backends import LogSink, Store

from ..settings import Settings
from .sink import with_sink
from .store import with_store

if TYPE_CHECKING:
    from . import Commands

TIMEOUT_S = 600.0
"""An upgrade may have to build an index over every row."""


def add_to(commands: Commands) -> list[argparse.ArgumentParser]:
    """The parser, added."""
    summary = "create or upgrade the schemas of sink and store; safe to repeat"
    parser = commands.add_parser("migrate", help=summary)
    parser.set_defaults(run=run)
    return [parser]


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Migrate both, the store also if the sink refuses; the exit status."""
    return max(_sink(settings), _store(settings))


def _sink(settings: Settings) -> int:
    if settings.log_writer_strategy.sink is None:
        sys.stdout.write("nothing to migrate: noop keeps no rows\n")
        return 0
    status = with_sink(settings, _migrate, migrates=True, timeout_s=TIMEOUT_S)
    if status == 0:
        sys.stdout.write(f"sinks.{settings.log_writer_strategy.sink}: the schema is up to date\n")
    return status


def _store(settings: Settings) -> int:
    status = with_store(settings, _migrate, timeout_s=TIMEOUT_S)
    if status == 0:
        sys.stdout.write("store: the schema is up to date\n")
    return status


async def _migrate(kept: LogSink | Store) -> None:
    await kept.migrate()
