"""Every error that this package raises. Callers branch on the class, never on the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sink import Committed


class BackendsError(Exception):
    """The root of this tree."""


class StateError(BackendsError):
    """A writer was started twice or after it closed. Build a new writer instead."""


class NotDurable(BackendsError):
    """The row of this call could not be made durable in time; ``reason`` names its bucket in the ledger."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the usage row could not be stored within the call ({reason})")
        self.reason = reason


class DeadLettersUnavailable(BackendsError):
    """The dead-letter file is full or cannot be written; the row stays where it is and is tried again."""


class SpoolUnavailable(BackendsError):
    """The spool's disk is full, failing or gone; the rows stay where they are. May be tried again.

    What was to be written may be there all the same.
    """


class StrategyError(BackendsError):
    """LOG_WRITER_STRATEGY is not ``[batch:|single:]SINK`` or ``noop``."""


class SinkNotFound(StrategyError):
    """No sink of this name is built in or installed."""


class SinkDriverMissing(StrategyError):
    """The sink is known, its driver is not installed; the message names the extra to install."""


class SinkError(BackendsError):
    """What a sink may raise from any of its calls: one of the four classes below.

    ``code`` is short and stable (an SQLSTATE, an error number's name); the message carries no row's text
    and no secret.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class SinkRetryable(SinkError):
    """Not now. Send the same batch under the same id later.

    ``ambiguous`` says that the rows may have been stored all the same. ``slow_down`` asks for fewer,
    larger batches.
    """

    def __init__(
        self, code: str, message: str = "", *, ambiguous: bool = True, slow_down: bool = False
    ) -> None:
        super().__init__(code, message)
        self.ambiguous = ambiguous
        self.slow_down = slow_down


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one row was refused for good."""

    code: str
    message: str = ""


class SinkRowsRejected(SinkError):
    """These rows, by index in the batch, never. The others are durable if ``stored`` tells so,
    else they are sent again in a batch of their own."""

    def __init__(self, rejected: Mapping[int, Rejection], stored: Committed | None = None) -> None:
        first = next(iter(rejected.values()), Rejection("rejected"))
        super().__init__(first.code, first.message)
        self.rejected = dict(rejected)
        self.stored = stored


class SinkBatchRejected(SinkError):
    """Refused for good, nothing of the batch stored, culprit unknown: the core bisects."""


class SinkFatal(SinkError):
    """Credentials, schema or configuration. Rows are kept; a person has to act."""


class StoreNotFound(BackendsError):
    """There is no store for URLs of this scheme."""


class StoreDriverMissing(StoreNotFound):
    """The store is known, its driver is not installed; the message names the extra to install."""


class StoreError(BackendsError):
    """What a store may raise: one of the two classes below. ``code`` is short and stable; no text shows a
    secret."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class StoreUnavailable(StoreError):
    """Down, busy, too slow, or not as it has to be: nothing is known of the answer. Ask again later."""


class StoreConflict(StoreError):
    """The record contradicts one that is there; ``field`` names what of it. Nothing was changed."""

    def __init__(self, field: str, message: str = "") -> None:
        super().__init__("conflict", message)
        self.field = field
