"""The command ``tallygate``: arguments in, exit status out."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import threading
from collections.abc import Coroutine, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import uvloop
import yaml

from backends import SinkError, StoreError, sinks

from .app import closing_within
from .commands import add_commands
from .logging_setup import set_up_logging
from .providers.any_llm.opening import check_providers
from .sections import CLOSING_S
from .serve import serve, serve_as_worker
from .settings import ConfigurationError, Settings, effective_settings, load_settings, sink_options
from .store import check_store, opened_store
from .supervisor import supervise
from .worker import WORKER_VARIABLE

log = logging.getLogger("gateway.cli")

EXIT_CONFIGURATION = 2
CONNECT_TIMEOUT_S = 10.0
LAST_STEPS_S = 0.1
"""What a thread that has been let go may still need to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv``; the exit status as the contract has it."""
    arguments = _parser().parse_args(argv)
    set_up_logging()
    if arguments.command == "serve" and (line := os.environ.pop(WORKER_VARIABLE, None)):
        return _run(serve_as_worker(int(line)), "the port of its supervisor")
    try:
        settings = _settings(arguments)
        if arguments.command in ("serve", "check"):
            asyncio.run(check_store(settings))
            check_providers(settings.providers)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    if run := getattr(arguments, "run", None):
        return int(run(settings, arguments))
    return _check(settings, arguments.connect) if arguments.command == "check" else _serve(settings)


def _settings(arguments: argparse.Namespace) -> Settings:
    named = arguments.config or os.environ.get("GATEWAY_CONFIG")
    overrides = {name: getattr(arguments, name, None) for name in ("host", "port", "workers")}
    given = {name: value for name, value in overrides.items() if value is not None}
    return load_settings(Path(named) if named else None, os.environ, given)


def _serve(settings: Settings) -> int:
    program = serve(settings) if settings.workers == 1 else supervise(settings)
    return _run(program, f"{settings.host}:{settings.port}")


def _run(program: Coroutine[Any, Any, int], address: str) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            status = runner.run(program)
        except OSError as error:
            print(f"cannot listen on {address}: {error.strerror or error}", file=sys.stderr)
            status = 1
        except Exception:  # the interpreter's own traceback would show what the error says
            log.exception("serve_failed")
            status = 1
        _end_soon(status)
    return status


def _end_soon(status: int) -> None:
    """The interpreter waits for a driver's threads at its end, if need be for ever; every row is accounted
    for by now, so it is given ``LAST_STEPS_S``."""
    timer = threading.Timer(LAST_STEPS_S, _end_now, [status])
    timer.daemon = True
    timer.start()


def _end_now(status: int) -> None:
    hanging = [each.name for each in threading.enumerate() if not each.daemon]
    log.warning("thread_hangs", extra={"name_of_thread": ", ".join(hanging)})
    logging.shutdown()
    os._exit(status)


def _check(settings: Settings, connects: bool) -> int:
    print(yaml.safe_dump(effective_settings(settings), sort_keys=False), end="")
    if not connects:
        return 0
    sink = settings.log_writer_strategy.sink
    answers = [] if sink is None else [_answers(_ping(settings, sink), f"sinks.{sink}")]
    answers.append(_answers(_ping_store(settings), "store.url"))
    if all(answers):
        return 0
    _end_soon(EXIT_CONFIGURATION)
    return EXIT_CONFIGURATION


def _answers(ping: Coroutine[Any, Any, None], key: str) -> bool:
    try:
        asyncio.run(ping)
        return True
    except (SinkError, StoreError) as error:
        reason = str(error)
    except TimeoutError:
        reason = f"no answer in {CONNECT_TIMEOUT_S:.0f} s"
    except Exception as error:  # its text may hold a secret
        reason = f"cannot be opened ({type(error).__name__})"
    print(f"{key}: {reason}", file=sys.stderr)
    return False


async def _ping_store(settings: Settings) -> None:
    opened = closing_within(opened_store(settings), CLOSING_S, "store")
    async with opened as store, asyncio.timeout(CONNECT_TIMEOUT_S):
        await store.ping()


async def _ping(settings: Settings, name: str) -> None:
    opened = closing_within(sinks.load(name).open(sink_options(settings)), CLOSING_S, "sink")
    async with opened as sink, asyncio.timeout(CONNECT_TIMEOUT_S):
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
    add_commands(commands)
    for command in (serving, checking):
        command.add_argument("--config", metavar="FILE", help="YAML file (default: $GATEWAY_CONFIG)")
    return parser


def _version() -> str:
    try:
        return version("tallygate")
    except PackageNotFoundError:
        return "(not installed)"
