"""The configured sink for one command: opened, used, and its trouble told in one line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from backends import LogSink, SinkError, SinkOptions, sinks

from ..settings import Settings, sink_options

EXIT_CONFIGURATION = 2

Use: TypeAlias = Callable[[LogSink], Awaitable[None]]


class Refused(Exception):
    """The command cannot do that; the text says why, in one line."""


def with_sink(
    settings: Settings,
    use: Use,
    *,
    migrates: bool,
    timeout_s: float | None = None,
    read_timeout_s: float = 0.0,
) -> int:
    """Give the open sink to ``use``; the exit status. With ``migrates`` false the schema is left as it is,
    whatever the configuration says. A sink with an own limit for reading has ``read_timeout_s`` at least."""
    name = settings.log_writer_strategy.sink
    if name is None:
        return refuse("log_writer_strategy: noop keeps no rows")
    try:
        asyncio.run(_used(name, _options(settings, migrates, read_timeout_s), use, timeout_s))
    except (SinkError, Refused) as error:
        return refuse(f"sinks.{name}: {error}")
    except TimeoutError:
        return refuse(f"sinks.{name}: no answer in {timeout_s or 0:.0f} s")
    return 0


def refuse(line: str) -> int:
    """Say why not, in one line; the exit status."""
    sys.stderr.write(f"{' '.join(line.split())}\n")
    return EXIT_CONFIGURATION


async def _used(name: str, options: SinkOptions, use: Use, timeout_s: float | None) -> None:
    async with sinks.load(name).open(options) as sink, asyncio.timeout(timeout_s):
        await use(sink)


def _options(settings: Settings, migrates: bool, read_timeout_s: float) -> SinkOptions:
    options = sink_options(settings)
    fields, changes = type(options).model_fields, dict[str, object]()
    if "migrate" in fields and not migrates:
        changes["migrate"] = False
    if "read_timeout_s" in fields:
        changes["read_timeout_s"] = max(getattr(options, "read_timeout_s"), read_timeout_s)  # noqa: B009
    return options.model_copy(update=changes)
