"""``tallygate logs dead-letters``: the rows that the sink refused for good, read from their files.

Works beside a running gateway and without one. Changes nothing and asks no server.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from backends import DeadLettersUnavailable, KeptLetter, letters_in

from ..settings import Settings
from .output import show, show_json, until_nobody_reads
from .sink import refuse
from .tables import letters_table

if TYPE_CHECKING:
    from . import Commands

PAGE_LETTERS = 500


def add_to(kinds: Commands) -> argparse.ArgumentParser:
    """The parser, added."""
    parser = kinds.add_parser("dead-letters", help="rows that the sink refused for good, the oldest first")
    parser.add_argument("--format", choices=("table", "json", "jsonl"), default="table")
    parser.set_defaults(run=run)
    return parser


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the letters; the exit status."""
    letters = letters_in(settings.dead_letters_folder)
    try:
        return until_nobody_reads(lambda: _shown(letters, arguments.format))
    except DeadLettersUnavailable as error:
        return refuse(str(error))


def _shown(letters: Iterator[KeptLetter], format: str) -> int:
    if format == "json":
        show_json({"data": [letter.to_json() for letter in letters]})
        return 0
    is_table, is_first = format == "table", True
    while (page := list(islice(letters, PAGE_LETTERS))) or is_first:
        show(letters_table(page, has_head=is_first) if is_table else _lines(page))
        is_first = False
    return 0


def _lines(letters: Iterable[KeptLetter]) -> str:
    return "".join(json.dumps(letter.to_json(), ensure_ascii=False) + "\n" for letter in letters)
