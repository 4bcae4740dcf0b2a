"""``tallygate migrate``: the schema of the configured sink, made or brought up to this program's."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from backends import LogSink

from ..settings import Settings
from .sink import with_sink

if TYPE_CHECKING:
    from . import Commands

TIMEOUT_S = 600.0
"""An upgrade may have to build an index over every row."""


def add_to(commands: Commands) -> list[argparse.ArgumentParser]:
    """The parser, added."""
    parser = commands.add_parser("migrate", help="create or upgrade the schema of the sink; safe to repeat")
    parser.set_defaults(run=run)
    return [parser]


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Migrate; the exit status."""
    if settings.log_writer_strategy.sink is None:
        sys.stdout.write("nothing to migrate: noop keeps no rows\n")
        return 0
    status = with_sink(settings, _migrate, migrates=True, timeout_s=TIMEOUT_S)
    if status == 0:
        sys.stdout.write(f"sinks.{settings.log_writer_strategy.sink}: the schema is up to date\n")
    return status


async def _migrate(sink: LogSink) -> None:
    await sink.migrate()
