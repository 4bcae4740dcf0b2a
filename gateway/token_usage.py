"""The token counts that a provider reports, read without trust.

Takes the ``usage`` object of an answer or of a stream's event; gives counts that fit every sink.
Anything else than a plain count is unknown, never zero and never an error.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct, structs

_MAX_COUNT = 2**63 - 1
"""The largest integer that every sink's column holds."""


class TokenUsage(Struct, frozen=True):
    """Counts of one call. ``cached_tokens`` are part of the prompt's, ``reasoning_tokens`` of the
    completion's. None means that the provider did not say. ``adds_up``: this provider says no total, and what
    it counts is disjoint."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    adds_up: bool = False

    def summed(self) -> TokenUsage:
        """With its total, if it adds up."""
        if not self.adds_up or self.prompt_tokens is None or self.completion_tokens is None:
            return self
        return structs.replace(self, total_tokens=total(self.prompt_tokens, self.completion_tokens))

    def updated(self, later: TokenUsage) -> TokenUsage:
        """What is known after both reports of one stream: for each count the last that was given."""
        return TokenUsage(
            _last(self.prompt_tokens, later.prompt_tokens),
            _last(self.completion_tokens, later.completion_tokens),
            _last(self.total_tokens, later.total_tokens),
            _last(self.cached_tokens, later.cached_tokens),
            _last(self.reasoning_tokens, later.reasoning_tokens),
            self.adds_up or later.adds_up,
        )


class CountNames(NamedTuple):
    """How the members of a ``usage`` object are called."""

    prompt: str
    completion: str
    prompt_details: str
    completion_details: str


OPENAI = CountNames(
    "prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"
)
INPUT_OUTPUT = CountNames("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")
"""Of OpenAI's newer endpoints."""

_NOTHING = TokenUsage()


def read_usage(usage: object, names: CountNames = OPENAI) -> TokenUsage | None:
    """The counts in a ``usage`` object; None when there is no usable count in it."""
    if not isinstance(usage, dict):
        return None
    counts = TokenUsage(
        prompt_tokens=count_in(usage, names.prompt),
        completion_tokens=count_in(usage, names.completion),
        total_tokens=count_in(usage, "total_tokens"),
        cached_tokens=count_in(usage.get(names.prompt_details), "cached_tokens"),
        reasoning_tokens=count_in(usage.get(names.completion_details), "reasoning_tokens"),
    )
    return None if counts == _NOTHING else counts


def total(*counts: int | None) -> int | None:
    """The sum of those that are known, if it is a count itself; None if none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known and sum(known) <= _MAX_COUNT else None


def _last(earlier: int | None, later: int | None) -> int | None:
    return earlier if later is None else later


def count_in(holder: object, name: str) -> int | None:
    """The count under ``name``, if it is one that fits every sink."""
    value = holder.get(name) if isinstance(holder, dict) else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MAX_COUNT else None
