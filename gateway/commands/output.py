"""What a command prints: UTF-8 whatever the terminal's locale is, and no complaint if nobody reads on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def show(text: str) -> None:
    """Print ``text`` as it is."""
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def show_json(value: Any) -> None:
    """Print ``value`` for people who read JSON."""
    show(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def until_nobody_reads(command: Callable[[], int]) -> int:
    """Run ``command``; its exit status, or 0 if whoever read its output has seen enough."""
    try:
        return command()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
