"""The command ``tallygate``: arguments in, exit status out."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import uvloop
import yaml

from backends import SinkError, sinks

from .logging_setup import set_up_logging
from .serve import serve
from .settings import ConfigurationError, Settings, effective_settings, load_settings, sink_options

EXIT_CONFIGURATION = 2
CONNECT_TIMEOUT_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv``; the exit status as the contract has it."""
    arguments = _parser().parse_args(argv)
    set_up_logging()
    try:
        settings = _settings(arguments)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    return _check(settings, arguments.connect) if arguments.command == "check" else _serve(settings)


def _settings(arguments: argparse.Namespace) -> Settings:
    named = arguments.config or os.environ.get("GATEWAY_CONFIG")
    overrides = {name: getattr(arguments, name, None) for name in ("host", "port", "workers")}
    given = {name: value for name, value in overrides.items() if value is not None}
    return load_settings(Path(named) if named else None, os.environ, given)


def _serve(settings: Settings) -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(serve(settings))
    except OSError as error:
        print(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}", file=sys.stderr)
        return 1


def _check(settings: Settings, connects: bool) -> int:
    print(yaml.safe_dump(effective_settings(settings), sort_keys=False), end="")
    if not connects or settings.log_writer_strategy.sink is None:
        return 0
    try:
        asyncio.run(_ping(settings, settings.log_writer_strategy.sink))
    except (SinkError, TimeoutError) as error:
        reason = str(error) or f"no answer in {CONNECT_TIMEOUT_S:.0f} s"
        print(f"sinks.{settings.log_writer_strategy.sink}: {reason}", file=sys.stderr)
        return EXIT_CONFIGURATION
    return 0


async def _ping(settings: Settings, name: str) -> None:
    async with sinks.load(name).open(sink_options(settings)) as sink, asyncio.timeout(CONNECT_TIMEOUT_S):
        await sink.ping()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tallygate", description="LLM gateway with an exact usage log")
    parser.add_argument("--version", action="version", version=f"tallygate {_version()}")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="serve until SIGTERM or Ctrl-C")
    serving.add_argument("--host", help="address to listen on (default: the configuration's)")
    serving.add_argument("--port", type=int, help="port to listen on; 0 picks a free one")
    serving.add_argument("--workers", type=int, help="processes that serve")
    checking = commands.add_parser("check", help="validate and print the effective settings, secrets masked")
    checking.add_argument("--connect", action="store_true", help="also ask the servers")
    for command in (serving, checking):
        command.add_argument("--config", metavar="FILE", help="YAML file (default: $GATEWAY_CONFIG)")
    return parser


def _version() -> str:
    try:
        return version("tallygate")
    except PackageNotFoundError:
        return "(not installed)"
