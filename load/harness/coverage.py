"""Coverage by id: what clients were promised and the provider saw, beside the rows. Counts nothing that it
cannot name: a loss and a duplicate do not add up to nothing here.

Takes calls, the provider's list and rows; gives ids. No network, no files, no gateway code.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from usage_rows import Row

from harness.calls import Call

EXAMPLES = 5
_REQUEST = "request "
"""Before the name of a call that has no id."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Each list names ids, or requests where there is no id.

    ``missing``: promised ids, and calls that the provider saw, without a row. ``duplicate``: ids and calls
    with several rows, and calls that the provider was asked twice. ``unknown``: rows that no call explains.
    ``wrong``: rows whose tokens are not those that the provider counted, or that tell of another ending
    than the client saw. ``unpromised``: calls whose answer came, or began, without an id. ``excused`` are no
    loss: what would be missing, but was not owed.
    """

    promised: int
    seen: int
    rows: int
    missing: Sequence[str]
    duplicate: Sequence[str]
    unknown: Sequence[str]
    wrong: Sequence[str]
    unpromised: Sequence[str]
    excused: Sequence[str] = ()

    @property
    def percent(self) -> float:
        """Of the promised ids that were owed, those that are there; rounded down, so that 100 means all."""
        owed = self.promised - _ids(self.excused)
        return math.floor(1e6 * (owed - _ids(self.missing)) / owed) / 1e4 if owed else 0.0

    def problems(self) -> list[str]:
        """One line for each list that is not empty."""
        told = {
            "promised ids or calls of the provider's have no row": self.missing,
            "ids or calls are there twice": self.duplicate,
            "rows belong to no call": self.unknown,
            "rows are not what their calls were": self.wrong,
            "calls were answered without an id": self.unpromised,
        }
        found = [
            f"{len(which)} {what}: {', '.join(which[:EXAMPLES])}" for what, which in told.items() if which
        ]
        return found or ([] if self.promised else ["no id was promised: nothing was proven"])

    def told(self) -> dict[str, Any]:
        """For the result: numbers."""
        lists = ("missing", "duplicate", "unknown", "wrong", "unpromised", "excused")
        counts = {name: len(getattr(self, name)) for name in lists}
        return {
            "promised": self.promised,
            "seen_by_provider": self.seen,
            "rows": self.rows,
            **counts,
            "percent": self.percent,
        }


def compare(
    calls: Iterable[Call],
    seen: Iterable[Mapping[str, Any]],
    rows: Iterable[Row],
    unowed: Collection[str] = (),
) -> Coverage:
    """Call it when nothing is on its way any more. ``unowed`` are requests that were owed no row, but may
    have one."""
    calls, rows, seen = list(calls), list(rows), list(seen)
    by_request = {call.request_id: call for call in calls}
    provider = {each["request_id"]: each for each in seen}
    # An attempt that a retry hid has a row beside that of its call.
    of_calls = [row for row in rows if row.status != "absorbed"]
    twice = (
        [row.id for row in rows],
        [row.request_id for row in of_calls],
        [each["request_id"] for each in seen],
    )
    absent = _absent(calls, provider, rows)
    explained = by_request.keys() | provider.keys()
    return Coverage(
        promised=len({call.promised for call in calls if call.promised}),
        seen=len(provider),
        rows=len(rows),
        missing=[name for request, name in absent if request not in unowed],
        duplicate=[key for each in twice for key, times in Counter(each).items() if times > 1],
        unknown=[row.id for row in rows if row.request_id not in explained],
        wrong=list(_wrong(of_calls, by_request, provider)),
        unpromised=[_REQUEST + each.request_id for each in calls if _is_unpromised(each)],
        excused=[name for request, name in absent if request in unowed],
    )


def _absent(
    calls: Iterable[Call], provider: Mapping[str, Mapping[str, Any]], rows: Iterable[Row]
) -> list[tuple[str, str]]:
    """Request and name of everything that should have a row: ids, and requests without a row by them."""
    rows = list(rows)
    ids, requests = {row.id for row in rows}, {row.request_id for row in rows if row.status != "absorbed"}
    lost = [(call.request_id, call.promised) for call in calls if call.promised and call.promised not in ids]
    named = {request for request, _ in lost}
    return lost + [(each, _REQUEST + each) for each in provider if each not in requests | named]


def _is_unpromised(call: Call) -> bool:
    return call.outcome in ("answered", "left") and not call.promised


def _ids(names: Iterable[str]) -> int:
    return sum(not name.startswith(_REQUEST) for name in names)


def _wrong(
    rows: Iterable[Row], calls: Mapping[str, Call], provider: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    for row in rows:
        if why := _difference(row, calls.get(row.request_id), provider.get(row.request_id)):
            yield f"{row.id} ({row.request_id}: {why})"


def _difference(row: Row, call: Call | None, seen: Mapping[str, Any] | None) -> str | None:
    if call and call.promised and call.promised != row.id:
        return f"promised was {call.promised}"
    if call and call.outcome == "answered":
        if row.status != "success":
            return f"answered, but {row.status} {row.end_reason}"
        if row.usage_source != "provider":
            return f"usage_source {row.usage_source}"
    if row.usage_source != "provider":
        return None
    if seen is None:
        return "the provider saw no such call"
    counted = (int(seen["prompt_tokens"]), int(seen["completion_tokens"]))
    told = (row.prompt_tokens, row.completion_tokens)
    if told != counted or row.total_tokens != sum(counted):
        return f"tokens {told} and {row.total_tokens} in all, the provider counted {counted}"
    return None
