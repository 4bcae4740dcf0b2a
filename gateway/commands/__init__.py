"""The commands of ``tallygate`` beside ``serve`` and ``check``, each in a module of its own.

A command adds its parser to those of ``gateway.cli`` and leaves ``run`` in the arguments, which takes the
settings and the arguments and gives the exit status.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypeAlias

from . import budgets, keys, logs, migrate

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_commands(commands: Commands) -> None:
    """Give ``commands`` all of them."""
    for parser in (
        *migrate.add_to(commands),
        *logs.add_to(commands),
        *budgets.add_to(commands),
        *keys.add_to(commands),
    ):
        parser.add_argument("--config", metavar="FILE", help="YAML file (default: $GATEWAY_CONFIG)")
