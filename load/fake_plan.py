"""How each call of the fake provider goes: drawn from rates, the same for the same seed and number."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field, fields, replace
from typing import Any, TextIO

from fake_bodies import bad_request

ERRORS = (500, 503, 429)
LATER = ("finished", "took_ms")
"""Members of a call that nobody knows before it was answered."""


@dataclass(frozen=True)
class Options:
    """How calls go unless they say otherwise. Times in milliseconds, rates from 0 to 1."""

    delay_ms: float = 0.0
    jitter_sigma: float = 0.0
    delay_min_ms: float = 0.0
    delay_max_ms: float = 60_000.0
    chunk_ms: float = 0.0
    chunks: int = 5
    error_rate: float = 0.0
    hang_rate: float = 0.0
    cut_rate: float = 0.0
    malformed_rate: float = 0.0
    missing_usage_rate: float = 0.0
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """How one call goes: what a body may set under ``fake``. ``cut_after``: so many pieces of content,
    then the connection is closed; a plain answer is cut in its middle."""

    delay_ms: float = 0.0
    status: int = 200
    hang: bool = False
    cut_after: int | None = None
    malformed: bool = False
    no_usage: bool = False
    chunks: int = 5
    chunk_ms: float = 0.0
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass
class Seen:
    """One call in the list. ``finished``: the whole answer, good or bad, was handed to the connection;
    ``took_ms``: how long that was after its arrival."""

    number: int
    request_id: str | None
    user: str | None
    endpoint: str
    model: str
    stream: bool
    status: int
    prompt_tokens: int
    completion_tokens: int
    no_usage: bool
    finished: bool = False
    took_ms: float | None = None


@dataclass
class Calls:
    """Every call in the order of arrival, and a file that has a line for each before it is answered."""

    file: TextIO | None = None
    seen: list[Seen] = field(default_factory=list)

    def add(self, call: Seen) -> None:
        self.seen.append(call)
        if self.file is not None:
            line = {name: value for name, value in vars(call).items() if name not in LATER}
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()


def plan_of(options: Options, number: int, overrides: dict[str, Any]) -> Plan:
    """The same for the same seed and number, whatever ran in between."""
    rng = random.Random(f"{options.seed}:{number}")
    is_cut = rng.random() < options.cut_rate
    drawn = Plan(
        delay_ms=_delay_ms(options, rng),
        status=rng.choice(ERRORS) if rng.random() < options.error_rate else 200,
        hang=rng.random() < options.hang_rate,
        cut_after=rng.randrange(max(1, options.chunks)) if is_cut else None,
        malformed=rng.random() < options.malformed_rate,
        no_usage=rng.random() < options.missing_usage_rate,
        chunks=options.chunks,
        chunk_ms=options.chunk_ms,
        cached_tokens=options.cached_tokens,
        reasoning_tokens=options.reasoning_tokens,
    )
    known = {each.name for each in fields(Plan)}
    if not isinstance(overrides, dict) or not overrides.keys() <= known:
        raise bad_request(f"fake is an object with some of: {', '.join(sorted(known))}")
    return replace(drawn, **overrides)


def _delay_ms(options: Options, rng: random.Random) -> float:
    delay = options.delay_ms * math.exp(options.jitter_sigma * rng.gauss(0, 1))
    return min(max(delay, options.delay_min_ms), options.delay_max_ms)
