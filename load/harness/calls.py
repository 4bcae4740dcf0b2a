"""One call as its client saw it, and the file with a line for each: the same for k6 and for the driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TextIO, TypeAlias

Kind: TypeAlias = Literal["plain", "stream", "leave"]
"""``leave``: a stream whose client hangs up in the middle."""
Outcome: TypeAlias = Literal["waiting", "answered", "left", "refused", "broken", "unreached"]
"""``left``: the client hung up, as it meant to. ``refused``: an error without a promise.
``broken``: the answer began and did not end well. ``unreached``: there was no answer at all."""
FAILED: tuple[Outcome, ...] = ("waiting", "refused", "broken", "unreached")


@dataclass(slots=True)
class Call:
    """Moments are milliseconds of the wall clock; ``due_ms`` is when the call was meant to be sent, which is
    what its client's patience is counted from. ``promised`` is the answer's x-usage-id, ``code`` the stable
    name of the error that it got instead of an answer, or at the end of a stream."""

    scenario: str
    request_id: str
    kind: Kind = "plain"
    outcome: Outcome = "waiting"
    status: int = 0
    promised: str | None = None
    code: str | None = None
    due_ms: float = 0.0
    sent_ms: float = 0.0
    first_ms: float | None = None
    done_ms: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether the client did not get what it asked for."""
        return self.outcome in FAILED

    @property
    def latency_ms(self) -> float:
        """From the intended moment on."""
        return self.done_ms - self.due_ms

    def write_to(self, file: TextIO) -> None:
        """Its line, at once."""
        file.write(json.dumps(asdict(self)) + "\n")
        file.flush()


def read_calls(path: Path) -> Iterator[Call]:
    """Every call of the file. Raises ``ValueError`` on a line that is none: nothing may go uncounted."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield Call(**json.loads(line))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number} is no call: {line[:200]}") from error
