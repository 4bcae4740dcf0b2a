"""What a gateway owes, and whether it was paid: calls and runs as seen from outside, beside the rows.

Takes the calls as their clients saw them, the runs of the gateway as whoever ended them tells, the provider's
list and the rows; gives a verdict. No network, no files, no gateway code.

The obligations follow from how a run ended:
  stopped       every call that was promised a row, or that the provider saw, has it; but for rows named as
                abandoned, which the harness allows only where disk and sink failed at once
  killed, with a journal
                the same; a call that was interrupted has its row as ``cancelled``, ``crash``
  killed, without one
                what was promised before the ledger was last seen, less the rows that it showed as queued or
                in flight then: what it had shown as committed or spooled is there
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Literal, TypeAlias

from usage_rows import Row

Kind: TypeAlias = Literal["plain", "stream", "leave", "fails"]
"""``leave``: a stream whose client hangs up; ``fails``: a call that the provider answers with an error."""
Outcome: TypeAlias = Literal["waiting", "answered", "left", "refused", "broken", "unreached"]
Ending: TypeAlias = Literal["running", "stopped", "killed"]

PRICE = {"input_per_million": "0.15", "output_per_million": "0.60"}
"""Of the model that all calls are for."""
_NINE_PLACES = Decimal("0.000000001")
EXAMPLES = 5


@dataclass(slots=True)
class Call:
    """One call as its client saw it. ``place`` counts the calls of the run that ended with a promise."""

    request_id: str
    run: int
    kind: Kind
    outcome: Outcome = "waiting"
    status: int = 0
    promised: str | None = None
    place: int | None = None


@dataclass(slots=True)
class Run:
    """One life of the gateway. ``shown_place`` calls had ended with a promise when the ledger was last asked,
    and ``shown_floating`` rows were neither committed nor on the disk then. ``shed``: calls without a row."""

    number: int
    is_journalled: bool
    ending: Ending = "running"
    promises: int = 0
    shown_place: int = 0
    shown_floating: int = 0
    shed: int = 0
    unaccounted: int = 0
    abandoned: frozenset[str] = frozenset()
    may_abandon: bool = False

    @property
    def may_lose(self) -> bool:
        """Whether rows that only memory had may be gone."""
        return self.ending == "killed" and not self.is_journalled


@dataclass(slots=True)
class Verdict:
    """``problems`` is empty when everything is in order. The numbers are for the table."""

    answered: int = 0
    interrupted: int = 0
    rows: int = 0
    missing: int = 0
    duplicate: int = 0
    unknown: int = 0
    unequal: int = 0
    crash_rows: int = 0
    excused: int = 0
    abandoned: int = 0
    problems: list[str] = field(default_factory=list)

    def blame(self, what: str, which: Sequence[object]) -> int:
        """Note a problem, if there is one, with some examples; how many there are."""
        if which:
            some = ", ".join(map(str, which[:EXAMPLES]))
            self.problems.append(f"{len(which)} {what}: {some}")
        return len(which)


def judge(
    calls: Mapping[str, Call], runs: Sequence[Run], seen: Iterable[Mapping[str, Any]], rows: Sequence[Row]
) -> Verdict:
    """The verdict after healing: nothing is on its way any more."""
    provider = {call["request_id"]: call for call in seen if call["request_id"] in calls}
    by_request = {row.request_id: row for row in rows}
    verdict = Verdict(rows=len(rows))
    verdict.answered = sum(call.outcome == "answered" for call in calls.values())
    verdict.interrupted = sum(calls[each].outcome in ("broken", "unreached") for each in provider)
    verdict.crash_rows = sum(row.end_reason == "crash" for row in rows)
    verdict.duplicate = verdict.blame("rows are there twice", _twice(rows))
    strangers = [f"{row.id} {row.request_id}" for row in rows if not _was_asked_for(row, calls)]
    verdict.unknown = verdict.blame("rows that nobody asked for", strangers)
    owed = [call for call in calls.values() if call.promised or call.request_id in provider]
    absent = [call for call in owed if call.request_id not in by_request]
    wanting = [call for run in runs for call in _unexcused(run, [c for c in absent if c.run == run.number])]
    verdict.missing = verdict.blame("calls have no row", [_told(call, runs) for call in wanting])
    verdict.excused = len(absent) - len(wanting)
    verdict.abandoned = sum(len(run.abandoned) for run in runs)
    wrong = list(_unequal(calls, runs, provider, by_request))
    verdict.unequal = verdict.blame("rows are not what their calls were", wrong)
    verdict.blame("runs whose ledger did not add up", [run.number for run in runs if run.unaccounted])
    named = [run.number for run in runs if run.abandoned and not run.may_abandon]
    verdict.blame("runs gave rows up without need", named)
    return verdict


def _told(call: Call, runs: Sequence[Run]) -> str:
    run = runs[call.run]
    journal = "journalled" if run.is_journalled else "not journalled"
    return f"{call.request_id} ({call.kind}, {call.outcome}, {call.promised}; run {run.ending}, {journal})"


def _twice(rows: Sequence[Row]) -> list[str]:
    ids, requests = Counter(row.id for row in rows), Counter(row.request_id for row in rows)
    return [key for each in (ids, requests) for key, times in each.items() if times > 1]


def _was_asked_for(row: Row, calls: Mapping[str, Call]) -> bool:
    call = calls.get(row.request_id)
    return call is not None and call.promised in (None, row.id)


def _unexcused(run: Run, absent: Sequence[Call]) -> list[Call]:
    """Those whose row the gateway owes, whatever happened to it."""
    absent = [call for call in absent if call.promised not in run.abandoned]
    promised = [call for call in absent if call.promised]
    unpromised = [call for call in absent if not call.promised]
    if not run.may_lose:
        # Of abandoned or shed calls whose answer never came, nobody knows which ones they were.
        return promised + unpromised[len(run.abandoned) + run.shed :]
    # A call that its client left, or whose answer was cut, may not have had its row yet.
    answered = [call for call in promised if call.outcome == "answered" and call.place is not None]
    safe = [call for call in answered if (call.place or 0) < run.shown_place]
    return safe[run.shown_floating :]


def _unequal(
    calls: Mapping[str, Call],
    runs: Sequence[Run],
    provider: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, Row],
) -> Iterator[str]:
    for request_id, row in rows.items():
        if (call := calls.get(request_id)) is None:
            continue
        if row.end_reason == "crash":
            why = _not_a_crash(call, runs[call.run], row)
        else:
            why = _difference(call, provider.get(request_id), row)
        if why:
            yield f"{request_id} ({call.kind}, {call.outcome}): {why}"


def _not_a_crash(call: Call, run: Run, row: Row) -> str | None:
    """An answered call had its row in memory; where that was lost, its intent is better than nothing."""
    is_lost = run.may_lose or call.promised in run.abandoned
    if call.outcome == "answered" and not is_lost:
        return f"a crash row for an answered call (run {run.number}: {run.ending})"
    return None if row.status == "cancelled" else f"a crash row with status {row.status}"


def _difference(call: Call, seen: Mapping[str, Any] | None, row: Row) -> str | None:
    if seen is None:
        return "the provider saw no such call" if row.status == "success" else None
    if call.outcome == "answered" and (row.status, row.status_code) != _ending(call):
        return f"status {row.status} {row.status_code}, client saw {call.status}"
    if row.model != seen["model"]:
        return f"model {row.model}, the provider saw {seen['model']}"
    if call.outcome == "answered" and call.kind != "fails" and row.usage_source != "provider":
        return f"usage_source {row.usage_source}"
    if row.usage_source != "provider":
        return None
    prompt, completion = seen["prompt_tokens"], seen["completion_tokens"]
    counts = (row.prompt_tokens, row.completion_tokens, row.total_tokens)
    if counts != (prompt, completion, prompt + completion):
        return f"tokens {counts}, the provider counted {prompt} and {completion}"
    return None if row.cost == _cost(prompt, completion) else f"cost {row.cost}"


def _ending(call: Call) -> tuple[str, int]:
    return ("error" if call.kind == "fails" else "success"), call.status


def _cost(prompt: int, completion: int) -> Decimal:
    per_million = prompt * Decimal(PRICE["input_per_million"]) + completion * Decimal(
        PRICE["output_per_million"]
    )
    return (per_million / 1_000_000).quantize(_NINE_PLACES, ROUND_HALF_EVEN)
