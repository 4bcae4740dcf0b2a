"""What can still be read of a damaged file, row by row, around the places where SQLite gives up.

Takes a file that has been set aside and a whole one; gives the good rows to the whole one, and changes
nothing in the damaged one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..statements import as_text, statements
from .store import ROWS_PER_BATCH, SpoolStore, Stored

GIVE_UP_AFTER = 50_000
"""Row numbers in a row behind which there was nothing to be read."""

_SQL = statements("spool")


def salvage(damaged: Path, store: SpoolStore) -> int:
    """Give ``store`` what ``damaged`` still has; how many rows were new there. Raises what ``store`` raises.
    May be repeated."""
    connection = sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.text_factory = as_text
    try:
        connection.execute("PRAGMA writable_schema=ON")  # else a file cut short is refused as a whole
        rows = sum(store.take_in(some) for some in _chunks(_readable(connection, "readable_rows")))
        for some in _chunks(_readable(connection, "readable_intents")):
            store.take_in_intents(some)
        return rows
    finally:
        connection.close()


def _readable(connection: sqlite3.Connection, statement: str) -> Iterator[Stored]:
    after, misses = 0, 0
    while misses < GIVE_UP_AFTER:
        try:
            for number, *values in connection.execute(_SQL[statement], (after,)):
                after, misses = number, 0
                yield Stored(*values)
            return
        except sqlite3.DatabaseError as error:
            if "no such table" in str(error):
                return
            after, misses = after + 1, misses + 1


def _chunks(rows: Iterable[Stored]) -> Iterator[list[Stored]]:
    some: list[Stored] = []
    for row in rows:
        some.append(row)
        if len(some) == ROWS_PER_BATCH:
            yield some
            some = []
    yield some
