"""``tallygate logs replay``: dead letters are sent again, once what was wrong has been mended.

Marks them in their files: a running gateway sees the marks and sends the rows itself. For those whose owner
is gone it does so in the owner's place, under the lock. May be repeated, and ended at any time: a row that is
sent twice is stored once.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING
from uuid import UUID

from backends import (
    DeadLettersUnavailable,
    LogSink,
    Replayed,
    UnownedLetters,
    letters_in,
    mark_letters,
    unowned_letters,
)

from ..settings import Settings
from .output import show
from .sink import refuse, with_sink

if TYPE_CHECKING:
    from . import Commands

EXIT_REFUSED = 1


def add_to(kinds: Commands) -> argparse.ArgumentParser:
    """The parser, added."""
    parser = kinds.add_parser("replay", help="send dead letters again; safe to repeat")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--id", action="append", type=UUID, metavar="ROW_ID", help="this one; may be repeated")
    which.add_argument("--code", help="those that were refused with this code")
    which.add_argument("--all", action="store_true", help="all of them")
    parser.set_defaults(run=run)
    return parser


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Mark, and deliver what nobody else will; the exit status."""
    root = settings.dead_letters_folder
    try:
        marked = mark_letters(root, arguments.id, arguments.code)
        show(f"{_count(marked)} marked to be sent again\n")
        with unowned_letters(root) as letters:
            status = _deliver(settings, letters) if letters.has_marked() else 0
        waiting = sum(letter.is_marked for letter in letters_in(root))
    except DeadLettersUnavailable as error:
        return refuse(str(error))
    if status == 0 and waiting:
        show(f"{_count(waiting)} left to the running gateway\n")
    return status


def _deliver(settings: Settings, letters: UnownedLetters) -> int:
    timeout_s, told = settings.batching.attempt_timeout_s, Replayed()

    async def deliver(sink: LogSink) -> None:
        await letters.deliver(sink, settings.log_writer_strategy.sink or "", timeout_s, told)

    status = with_sink(settings, deliver, migrates=False)
    show(f"{_count(told.delivered)} delivered\n")
    for code, rows in sorted(told.refused.items()):
        show(f"{_count(rows)} refused again: {code}\n")
    return status or (EXIT_REFUSED if told.refused else 0)


def _count(letters: int) -> str:
    return f"{letters} dead letter" if letters == 1 else f"{letters} dead letters"
