"""What a server's error numbers mean to the core.

Takes a number, or the server's answer to an insert; gives one of the contract's errors, or what was stored.
Knows no driver. The numbers are part of MongoDB's protocol, and other servers that speak it use them too. The
server's own sentences are left out: they quote commands, and commands hold rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import Rejection, SinkError, SinkFatal, SinkRetryable
from .sink import Committed

DUPLICATE_KEY = 11000
UNAUTHORIZED = 13
AUTHENTICATION_FAILED = 18

FATAL = frozenset(
    {
        2,  # BadValue, such as j on a server without a journal
        9,  # FailedToParse
        11,  # UserNotFound
        UNAUTHORIZED,
        14,  # TypeMismatch
        AUTHENTICATION_FAILED,
        20,  # IllegalOperation
        59,  # CommandNotFound
        67,  # CannotCreateIndex
        72,  # InvalidOptions
        73,  # InvalidNamespace
        79,  # UnknownReplWriteConcern
        85,  # IndexOptionsConflict
        86,  # IndexKeySpecsConflict
        115,  # CommandNotSupported
        166,  # CommandNotSupportedOnView
        238,  # NotImplemented
        303,  # FeatureNotSupported
        323,  # APIStrictError
        8000,  # AtlasError: refused by the hosted service
        40415,  # an unknown field in a command
    }
)
"""A command that ends so ends so again, until a person changes the server or the configuration."""

UNSTORABLE = frozenset(
    {
        22,  # InvalidBSON
        10334,  # BSONObjectTooLarge
    }
)
"""An insert that ends so holds a row that this server never takes."""

TRANSIENT = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        24,  # LockTimeout
        46,  # LockBusy
        50,  # MaxTimeMSExpired
        63,  # StaleShardVersion
        64,  # WriteConcernTimeout
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        100,  # UnsatisfiableWriteConcern
        112,  # WriteConflict
        133,  # FailedToSatisfyReadPreference
        150,  # StaleEpoch
        189,  # PrimarySteppedDown
        202,  # NetworkInterfaceExceededTimeLimit
        225,  # TransactionTooOld
        262,  # ExceededTimeLimit
        365,  # TemporarilyUnavailable
        462,  # IngressRequestRateLimitExceeded
        9001,  # SocketException
        10058,  # NotPrimary, of old
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11601,  # Interrupted
        11602,  # InterruptedDueToReplStateChange
        13388,  # StaleConfig
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
        14031,  # OutOfDiskSpace
        16500,  # RequestRateTooLarge
    }
)
"""A row that was refused so is no worse than the others."""

_SAID: Mapping[int, str] = {
    UNAUTHORIZED: "the user has no right to do this; it needs the role readWrite on the database",
    AUTHENTICATION_FAILED: "the server does not accept this user and password",
}


def code_text(code: int | None, name: object) -> str:
    """A short and stable text for a number: the server's name for it, if it has one."""
    return str(name) if name else f"server_{code}"


def brief(error: Exception) -> str:
    """The beginning of a driver's text, which goes on about the topology."""
    return re.split(r"[,(<]", str(error), maxsplit=1)[0].strip()[:200]


def server_error(code: int | None, name: object) -> SinkError:
    """What a command that failed as a whole means. A number that nobody knows means: perhaps later."""
    text = code_text(code, name)
    if code in FATAL:
        return SinkFatal(text, _SAID.get(code or 0, "the server refuses the command"))
    return SinkRetryable(text, "the server could not do it now", ambiguous=True)


def settled(answer: Mapping[str, Any]) -> tuple[Committed, dict[int, Rejection]]:
    """What the answer to an unordered insert means that did not go all well: how many rows were stored or
    were there, and which were refused, by index. Raises ``SinkRetryable`` or ``SinkFatal`` for what is no
    one row's fault. As long as no majority has confirmed the rows, none counts as stored, nor as known."""
    if answer["writeConcernErrors"]:
        raise SinkRetryable("write_concern", "no majority has confirmed the rows yet", ambiguous=True)
    refused: dict[int, Rejection] = {}
    for error in answer["writeErrors"]:
        _raise_for_all(error["code"])
        if not _is_known_row(error):
            refused[error["index"]] = Rejection(f"server_{error['code']}")
    return Committed(answer["nInserted"], len(answer["writeErrors"]) - len(refused)), refused


def _raise_for_all(code: int) -> None:
    if code in TRANSIENT:
        raise SinkRetryable(f"server_{code}", "the server could not store all rows now", ambiguous=True)
    if code == UNAUTHORIZED:
        raise SinkFatal(f"server_{code}", _SAID[code])


def _is_known_row(error: Mapping[str, Any]) -> bool:
    """Whether the row was refused because it is there. A server that does not name the index means that of
    ``_id``: the schema has no other unique one."""
    return error["code"] == DUPLICATE_KEY and list(error.get("keyPattern", ["_id"])) == ["_id"]
