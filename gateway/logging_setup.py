"""How the process logs: one JSON line per event on stderr, with the fields ``time``, ``level`` and ``event``.

An event is a constant word; what varies goes into further fields (``extra=``). The message of an exception
may quote what a client sent, a prompt or a key, so a traceback here shows where and of which class, and
the message only of errors whose text comes from the operating system.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO, TypeAlias

from pythonjsonlogger.json import JsonFormatter

ExcInfo: TypeAlias = (
    "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"
)


class EventFormatter(JsonFormatter):
    """A log record as one JSON line."""

    def __init__(self) -> None:
        super().__init__(
            ["asctime", "levelname", "name", "message"],
            rename_fields={
                "asctime": "time",
                "levelname": "level",
                "name": "logger",
                "message": "event",
                "exc_info": "traceback",
            },
        )

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """The record's time in UTC with milliseconds."""
        moment = datetime.fromtimestamp(record.created, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def formatException(self, ei: ExcInfo) -> str:
        """The traceback without what the exceptions say; see the module."""
        return "" if ei[1] is None else "\n".join(_lines(ei[1]))

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Libraries write further lines into their messages, with the repr of whatever failed."""
        log_data["event"] = str(log_data["event"]).partition("\n")[0]
        return log_data


def set_up_logging(level: int | str = logging.INFO, stream: TextIO | None = None) -> None:
    """Send all logging of this process to ``stream`` (stderr) as JSON lines. May be repeated."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(EventFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)


def _lines(error: BaseException, seen: frozenset[int] = frozenset()) -> list[str]:
    seen |= {id(error)}
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    earlier: list[str] = []
    if before is not None and id(before) not in seen:
        earlier = [*_lines(before, seen), "which led to:"]
    frames = [line.rstrip("\n") for line in traceback.format_tb(error.__traceback__)]
    return [*earlier, *frames, *_names(error, seen)]


def _names(error: BaseException, seen: frozenset[int]) -> list[str]:
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    if isinstance(error, OSError) and error.strerror:
        return [f"{name}: {error.strerror}"]
    if not isinstance(error, BaseExceptionGroup):
        return [name]
    return [f"{name} of:", *(line for each in error.exceptions for line in _lines(each, seen))]
