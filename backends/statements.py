"""SQL lives in ``sql/*.sql``, readable without Python; this loads it.

Takes the name of a file; gives its statements by name. A statement begins with a line ``-- name: NAME``.
Never builds SQL from values: those are bound by the driver.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_HEADING = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def statements(file: str) -> MappingProxyType[str, str]:
    """The statements of ``sql/<file>.sql`` by name, in the order of the file."""
    assert __package__
    text = files(__package__).joinpath("sql", f"{file}.sql").read_text(encoding="utf-8")
    _, *parts = _HEADING.split(text)
    return MappingProxyType(dict(zip(parts[::2], map(_bare, parts[1::2]), strict=True)))


def _bare(statement: str) -> str:
    return statement.strip().removesuffix(";")


def as_text(text: bytes) -> str:
    """Bytes that have been damaged are still an answer."""
    return text.decode("utf-8", "replace")
