"""What ClickHouse's error numbers mean to the core.

Takes a number, its name and the server's text; gives one of the contract's errors. Knows no driver and keeps
no row's text: only where the server speaks of its own state is its sentence passed on.
"""

from __future__ import annotations

import re

from .errors import SinkBatchRejected, SinkError, SinkFatal, SinkRetryable

TOO_MANY_PARTS = 252

_FATAL = {
    16: "NO_SUCH_COLUMN_IN_TABLE",
    36: "BAD_ARGUMENTS",
    47: "UNKNOWN_IDENTIFIER",
    48: "NOT_IMPLEMENTED",
    60: "UNKNOWN_TABLE",
    62: "SYNTAX_ERROR",
    81: "UNKNOWN_DATABASE",
    115: "UNKNOWN_SETTING",
    164: "READONLY",  # the user's profile; a replica that lost its Keeper says 242
    192: "UNKNOWN_USER",
    193: "WRONG_PASSWORD",
    194: "REQUIRED_PASSWORD",
    195: "IP_ADDRESS_NOT_ALLOWED",
    291: "DATABASE_ACCESS_DENIED",
    452: "SETTING_CONSTRAINT_VIOLATION",
    497: "ACCESS_DENIED",
    516: "AUTHENTICATION_FAILED",
}
"""A person has to act: credentials, rights, schema, settings."""

_REJECTED = {
    27: "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
    53: "TYPE_MISMATCH",
    69: "ARGUMENT_OUT_OF_BOUND",
    70: "CANNOT_CONVERT_TYPE",
    131: "TOO_LARGE_STRING_SIZE",
    349: "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
    407: "DECIMAL_OVERFLOW",
    469: "VIOLATED_CONSTRAINT",
}
"""The rows themselves, at every try."""

_NOT_BEGUN = {
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    225: "NO_ZOOKEEPER",
    242: "TABLE_IS_READ_ONLY",
    774: "TABLE_IS_PERMANENTLY_READ_ONLY",  # somebody's setting, for a time
}
"""Later, and nothing was stored. Every other number is later too, and whether rows were stored is unknown."""

_SPEAKS_OF_ITSELF = {*_FATAL, *_NOT_BEGUN, 159, 160, 209, 210, 241, 243, 319, 999}
_SENTENCE = re.compile(r"DB::Exception: (.*?)\s*(?:\([A-Z_]+\)\s*)?(?:\(version |$)", re.DOTALL)
_MAX_MESSAGE = 300


def server_error(code: int, name: str | None, text: str) -> SinkError:
    """The error ``code`` of a server whose full answer is ``text``."""
    label = name or _FATAL.get(code) or _REJECTED.get(code) or _NOT_BEGUN.get(code) or f"CLICKHOUSE_{code}"
    if code == TOO_MANY_PARTS:
        return _too_many(label, text)
    message = sentence(text) if code in _SPEAKS_OF_ITSELF else ""
    if code in _FATAL:
        return SinkFatal(label, message)
    if code in _REJECTED:
        return SinkBatchRejected(label, message)
    return SinkRetryable(label, message, ambiguous=code not in _NOT_BEGUN)


def sentence(text: str) -> str:
    """The server's own words out of ``text``, cut to a line."""
    found = _SENTENCE.search(text)
    line = " ".join((found.group(1) if found else text).split())
    return line if len(line) <= _MAX_MESSAGE else f"{line[:_MAX_MESSAGE]}…"


def _too_many(label: str, text: str) -> SinkError:
    """One number for two troubles: merges that fell behind, and a block that touches too many partitions,
    which halves can mend and waiting cannot."""
    if "Too many partitions" in text:
        return SinkBatchRejected("TOO_MANY_PARTITIONS", sentence(text))
    return SinkRetryable(label, sentence(text), ambiguous=False, slow_down=True)
