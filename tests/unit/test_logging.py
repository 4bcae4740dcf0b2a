from __future__ import annotations

import io
import json
import logging
import uuid
import warnings
from datetime import datetime
from decimal import Decimal

import pytest

from gateway.logging_setup import set_up_logging


@pytest.fixture
def lines():
    """What was logged so far, as dicts; the root logger is as before afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()  # or the set-up would close handlers that are not ours
    stream = io.StringIO()
    set_up_logging(stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_an_event_is_one_json_line_with_its_fields(lines):
    logging.getLogger("gateway.serve").info("listening", extra={"url": "http://127.0.0.1:1", "pid": 7})

    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "gateway.serve",
        "event": "listening",
        "url": "http://127.0.0.1:1",
        "pid": 7,
    }


def test_the_time_is_utc_and_can_be_read_back(lines):
    logging.getLogger("gateway").info("listening")

    moment = datetime.fromisoformat(lines()[0]["time"])
    assert moment.utcoffset().total_seconds() == 0


def test_fields_that_json_does_not_know_are_still_one_line(lines):
    extra = {"id": uuid.UUID(int=1), "cost": Decimal("0.1"), "object": object(), "text": "a\nb\u2028\ud800"}

    logging.getLogger("gateway").info("odd", extra=extra)

    (line,) = lines()
    assert line["id"] == "00000000-0000-0000-0000-000000000001"
    assert line["text"] == extra["text"]


def test_a_traceback_shows_where_and_what_but_not_what_was_said(lines):
    prompt = " ".join(("my", "secret", "prompt"))  # apart, for the traceback quotes this very line

    try:
        try:
            int(prompt)
        except ValueError as error:
            raise KeyError(prompt) from error
    except KeyError:
        logging.getLogger("gateway").exception("internal_error")

    (line,) = lines()
    assert line["event"] == "internal_error"
    assert "test_logging.py" in line["traceback"]
    assert line["traceback"].index("builtins.ValueError") < line["traceback"].index("builtins.KeyError")
    assert prompt not in json.dumps(line)


def test_what_the_operating_system_says_is_kept(lines):
    logging.getLogger("gateway").error("failed", exc_info=PermissionError(13, "Permission denied", "secret"))

    assert lines()[0]["traceback"] == "builtins.PermissionError: Permission denied"


def test_a_group_names_the_errors_inside(lines):
    group = ExceptionGroup("two", [ValueError("secret"), KeyError("secret")])

    logging.getLogger("gateway").error("failed", exc_info=group)

    traceback = lines()[0]["traceback"].splitlines()
    assert traceback == ["builtins.ExceptionGroup of:", "builtins.ValueError", "builtins.KeyError"]


def test_errors_that_lead_to_each_other_in_a_circle_are_logged_once(lines):
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first

    logging.getLogger("gateway").error("failed", exc_info=first)

    assert lines()[0]["traceback"].splitlines() == [
        "builtins.KeyError",
        "which led to:",
        "builtins.ValueError",
    ]


def test_the_event_of_a_talkative_library_is_its_first_line(lines):
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: %r", ValueError("secret"))

    assert lines()[0]["event"] == "Task exception was never retrieved"
    assert "secret" not in json.dumps(lines())


def test_warnings_are_events_too(lines):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)

    assert lines()[0]["level"] == "WARNING"


def test_setting_up_again_does_not_double_the_lines(lines):
    second = io.StringIO()

    set_up_logging("WARNING", second)
    logging.getLogger("gateway").warning("once")
    logging.getLogger("gateway").info("not shown")

    assert len(second.getvalue().splitlines()) == 1
    assert lines() == []
